"""The kernels of one pass over a chunk of every stream of two files, as numba compiles them.

The sums are those of :mod:`ckptools.compare.distances`.  A *screen* is an upper bound of the
ratios of :mod:`ckptools.compare.bounds` over one block of elements, cheaper than the ratio: where
it stays below 1 nothing there can be impossible, and only blocks where it does not are judged by
the exact code (:mod:`ckptools.compare.screens` has the numbers and why they bound).

Maxima are taken over the bits of float32: they are ordered as the values are, a NaN comes last,
and integer maxima become vector instructions.

A kernel takes pointers and lengths (:mod:`ckptools.stats.machine`); it allocates nothing and raises
nothing.  ``scratch`` is room for a block of float32, ``bits`` the same memory as integers.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from ckptools.compare.screens import BLOCK, COEFFICIENTS
from ckptools.stats.jit import jit


def pair_sums(a, b, size, sums, good, scratch, bits):  # type: ignore[no-untyped-def]
    """Add the sums of two streams, block by block; clear ``good`` where one is not finite."""
    one, two, found = carray(a, size), carray(b, size), carray(sums, 6)
    room = carray(scratch, BLOCK), carray(bits, BLOCK)
    blocks = (size + BLOCK - 1) // BLOCK
    flags = carray(good, blocks)
    for number in range(blocks):
        start = number * BLOCK
        stop = min(start + BLOCK, size)
        flags[number] = _add(one[start:stop], two[start:stop], found, *room)


def adam(  # type: ignore[no-untyped-def]
    w_a, w_b, m_a, m_b, v_a, v_b, v_used, size, weights, c, d, eps, sums, good, out, scratch, bits
):
    """Do all there is to do with Adam's moments in both files, and the weight where there is one.

    Parameters
    ----------
    v_used: the second moment that the update divides by (AMSGrad's maximum).
    size: of each stream.
    weights: whether the first two streams are a weight; they are not looked at otherwise.
    c, d: coefficients of :class:`~ckptools.compare.screens.Screen`.
    sums: rows as in :func:`pair_sums` for weight, first and second moment; the last row takes
        Σstep², Σmoved·step and Σmoved² with step = −m/(√v + eps) and moved = w_b − w_a.
    good: rows of flags by block, set where the block was finite and entered these sums.
    out: screens by block and bound, NaN where there is none: a block that is not finite, or holds
        a negative second moment.
    """
    blocks = (size + BLOCK - 1) // BLOCK
    wa, wb, used = carray(w_a, size), carray(w_b, size), carray(v_used, size)
    ma, mb, va, vb = (
        carray(m_a, size),
        carray(m_b, size),
        carray(v_a, size),
        carray(v_b, size),
    )
    constants = carray(c, COEFFICIENTS[0]), carray(d, COEFFICIENTS[1])
    found, flags, screens = (
        carray(sums, (4, 6)),
        carray(good, (4, blocks)),
        carray(out, (blocks, 4)),
    )
    room, room_bits = carray(scratch, BLOCK), carray(bits, BLOCK)
    for number in range(blocks):
        part = slice(number * BLOCK, min((number + 1) * BLOCK, size))
        flag, screen = flags[:, number], screens[number]
        whole = _adam_sums(
            wa[part],
            wb[part],
            ma[part],
            mb[part],
            va[part],
            vb[part],
            used[part],
            weights,
            eps,
            found,
            flag,
            room,
            room_bits,
        )
        if whole and _least(va[part]) >= 0 and _least(vb[part]) >= 0:
            _adam_screens(
                wa[part],
                wb[part],
                ma[part],
                mb[part],
                va[part],
                vb[part],
                weights,
                *constants,
                screen,
                room,
                room_bits,
            )
        else:
            screen[:] = np.nan


@jit(reorder=False)
def _adam_sums(  # type: ignore[no-untyped-def]
    wa, wb, ma, mb, va, vb, used, weights, eps, sums, good, scratch, bits
):
    """Add the sums of one block and return whether all of it was finite."""
    good[1] = _add(ma, mb, sums[1], scratch, bits)
    good[2] = _add(va, vb, sums[2], scratch, bits)
    whole = good[1] != 0 and good[2] != 0
    if weights:
        good[0] = _add(wa, wb, sums[0], scratch, bits)
        whole = whole and good[0] != 0
        good[3] = 0
        if whole:
            squares, products, moved = _direction(wa, wb, mb, used, eps)
            if math.isfinite(squares) and math.isfinite(products):
                good[3] = 1
                sums[3, 0] += squares
                sums[3, 1] += products
                sums[3, 2] += moved
    return whole


@jit(reorder=False)
def _adam_screens(  # type: ignore[no-untyped-def]
    wa, wb, ma, mb, va, vb, weights, c, d, out, scratch, bits
):
    """Fill in the screens of one block that is finite, with no negative second moment."""
    size = ma.size
    room = scratch[:size]
    _moment(mb, vb, c, room)
    out[0] = _largest(bits, size)
    _decay(va, vb, c, room)
    out[1] = _largest(bits, size)
    _innovation(ma, mb, va, vb, c, room)
    out[2] = _largest(bits, size)
    if c[7] != 0:
        _fresh_second(ma, mb, va, vb, c, room)
        out[2] = max(out[2], _largest(bits, size))
    if weights:
        if _least(va) > d[4] and _least(vb) > 0:
            _tight(wa, wb, ma, va, vb, d, room)
        else:
            _near(wa, wb, ma, va, vb, d, room)
        out[3] = _largest(bits, size)


@jit(reorder=False)
def _add(a, b, sums, scratch, bits):  # type: ignore[no-untyped-def]
    """Add the sums of one block and return whether it was finite."""
    squares_a, squares_b, product, squares = _products(a, b, scratch)
    if not math.isfinite(squares_a + squares_b):
        return 0
    sums[0] += squares_a
    sums[1] += squares_b
    sums[2] += product
    sums[3] += squares
    sums[4] = max(sums[4], _largest(bits, a.size))
    sums[5] += a.size
    return 1


@jit(reorder=True)
def _products(a, b, scratch):  # type: ignore[no-untyped-def]
    squares_a = squares_b = product = squares = 0.0
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        d = y - x
        squares_a += x * x
        squares_b += y * y
        product += x * y
        squares += d * d
        scratch[i] = np.float32(abs(d))
    return squares_a, squares_b, product, squares


@jit(reorder=False)
def _float(bits):  # type: ignore[no-untyped-def]
    return np.int32(bits).view(np.float32)


@jit(reorder=False)
def _largest(bits, size):  # type: ignore[no-untyped-def]
    """Return the largest of the first floats, none of them negative, given as their bits."""
    top = np.int32(0)
    for i in range(size):
        top = max(top, bits[i])
    return _float(top)


@jit(reorder=True)
def _direction(w_a, w_b, m, v, eps):  # type: ignore[no-untyped-def]
    squares = products = movement = 0.0
    for i in range(m.size):
        step = -np.float64(m[i]) / (math.sqrt(np.float64(v[i])) + eps)
        moved = np.float64(w_b[i]) - np.float64(w_a[i])
        squares += step * step
        products += step * moved
        movement += moved * moved
    return squares, products, movement


@jit(reorder=True)
def _moment(m, v, c, out):  # type: ignore[no-untyped-def]
    for i in range(m.size):
        x = np.float64(m[i])
        out[i] = np.float32(x * x / (c[0] * (np.float64(v[i]) + c[1])))


@jit(reorder=True)
def _decay(v_a, v_b, c, out):  # type: ignore[no-untyped-def]
    for i in range(v_a.size):
        out[i] = np.float32(c[2] * np.float64(v_a[i]) / (np.float64(v_b[i]) + c[1]))


@jit(reorder=True)
def _innovation(m_a, m_b, v_a, v_b, c, out):  # type: ignore[no-untyped-def]
    for i in range(m_a.size):
        older = np.float64(m_a[i])
        change = abs(np.float64(m_b[i]) - c[6] * older)
        added = np.float64(v_b[i]) - c[2] * np.float64(v_a[i]) + c[1]
        limit = c[3] * math.sqrt(max(added, 0.0)) + c[4] * abs(older) + c[5]
        out[i] = np.float32(change / limit if added >= 0 else np.inf)


@jit(reorder=True)
def _fresh_second(m_a, m_b, v_a, v_b, c, out):  # type: ignore[no-untyped-def]
    """One step: the second moment over what the one gradient can have made it."""
    for i in range(m_a.size):
        older = np.float64(m_a[i])
        known = abs(np.float64(m_b[i]) - c[14] * older) + c[12] * abs(older) + c[13]
        gradient = known * c[11]
        limit = c[8] * (c[9] * np.float64(v_a[i]) + c[10] * gradient * gradient) + c[1]
        out[i] = np.float32(np.float64(v_b[i]) / limit)


@jit(reorder=False)
def _least(values):  # type: ignore[no-untyped-def]
    """Return the smallest value, or some negative one."""
    bits = values.view(np.int32)
    least = bits[0]
    for i in range(bits.size):
        least = min(least, bits[i])
    return _float(least)


@jit(reorder=False)
def _lines(c):  # type: ignore[no-untyped-def]
    """Return the six lines below the energy; held in registers, for the loops write memory."""
    return c[12], c[13], c[14], c[15], c[16], c[17], c[18], c[19], c[20], c[21], c[22], c[23]


@jit(reorder=True)
def _energy(x, lines):  # type: ignore[no-untyped-def]
    a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5 = lines
    most = max(a0 - b0 * x, a1 - b1 * x, a2 - b2 * x, a3 - b3 * x, a4 - b4 * x, a5 - b5 * x)
    return max(most, 0.0)


@jit(reorder=True)
def _tight(w_a, w_b, m_a, v_a, v_b, c, out):  # type: ignore[no-untyped-def]
    """T alone: every second moment is far above eps and underflow."""
    lines = _lines(c)
    for i in range(m_a.size):
        older, newer, v = np.float64(w_a[i]), np.float64(w_b[i]), np.float64(v_a[i])
        x = v / np.float64(v_b[i])
        limit = c[2] * abs(np.float64(m_a[i])) / math.sqrt(v) + c[3] * math.sqrt(_energy(x, lines))
        limit = min(limit, c[1])
        size = abs(older)
        whole = limit * c[6] + size * c[5] + c[7] + c[8] * (size + abs(newer))
        out[i] = np.float32(abs(newer - c[0] * older) / whole)


@jit(reorder=True)
def _near(w_a, w_b, m_a, v_a, v_b, c, out):  # type: ignore[no-untyped-def]
    """T and, where the second moment is near eps or underflow, EL."""
    lines = _lines(c)
    for i in range(m_a.size):
        older, newer, v = np.float64(w_a[i]), np.float64(w_b[i]), np.float64(v_a[i])
        size, first = abs(older), abs(np.float64(m_a[i]))
        after = np.float64(v_b[i])
        root = math.sqrt(v)
        x = v / max(after, 1e-300)
        limit = c[2] * first / max(root, 1e-150) + c[3] * math.sqrt(_energy(x, lines))
        if not (v > c[4] and after > 0):
            added = math.sqrt(max(after - c[9] * v + c[10], 0.0))
            below = root + c[11]
            loose = 0.0
            for g in range(4):
                reach = (c[28 + g] * first + c[32 + g] * added) / below
                loose += c[24 + g] * min(reach, c[36 + g])
            limit = min(limit, loose)
        limit = min(limit, c[1])
        whole = limit * c[6] + size * c[5] + c[7] + c[8] * (size + abs(newer))
        out[i] = np.float32(abs(newer - c[0] * older) / whole)


def step_sums(w_a, w_b, m, v, size, e, sums, good):  # type: ignore[no-untyped-def]
    """Add Σxy, Σx², Σ|x|s, Σy² and the count over the good blocks; clear those with other values.

    ``e`` holds :class:`~ckptools.compare.bounds.replay.StepTerms`.
    """
    wa, wb, first, second = carray(w_a, size), carray(w_b, size), carray(m, size), carray(v, size)
    blocks = (size + BLOCK - 1) // BLOCK
    terms, found, flags = carray(e, COEFFICIENTS[2]), carray(sums, 5), carray(good, blocks)
    for number in range(blocks):
        if flags[number]:
            part = slice(number * BLOCK, min((number + 1) * BLOCK, size))
            products, squares, slack, rest = _step_sums(
                wa[part], wb[part], first[part], second[part], terms
            )
            if math.isfinite(products + squares + slack + rest):
                found[0] += products
                found[1] += squares
                found[2] += slack
                found[3] += rest
                found[4] += part.stop - part.start
            else:
                flags[number] = 0


@jit(reorder=False)
def _terms(e):  # type: ignore[no-untyped-def]
    return e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7], e[8], e[9]


@jit(reorder=True)
def _step(older, newer, first, after, e):  # type: ignore[no-untyped-def]
    """Return x and y of y = rate·x, and the slack of y, for one element after a single step."""
    root = math.sqrt(after) / e[1] + e[2]
    x = first / (e[0] * root) + e[3] * older
    y = older - newer
    lost = e[6] / after if after > 0 else e[7]
    slack = e[4] * max(abs(older), abs(newer)) + (e[5] + lost) * abs(y)
    slack += e[6] * (1 + 2 / (e[0] * root)) + e[8] * (abs(older) + abs(newer)) + e[9]
    return x, y, slack


@jit(reorder=True)
def _step_sums(w_a, w_b, m, v, e):  # type: ignore[no-untyped-def]
    products = squares = weighted = rest = 0.0
    terms = _terms(e)
    for i in range(m.size):
        x, y, slack = _step(
            np.float64(w_a[i]), np.float64(w_b[i]), np.float64(m[i]), np.float64(v[i]), terms
        )
        products += x * y
        squares += x * x
        weighted += abs(x) * slack
        rest += y * y
    return products, squares, weighted, rest


def step_screen(  # type: ignore[no-untyped-def]
    w_a, w_b, m, v, size, e, rate, uncertainty, good, out, scratch, bits
):
    """Fill in the screen of replay for every block, NaN where one is not good."""
    wa, wb, first, second = carray(w_a, size), carray(w_b, size), carray(m, size), carray(v, size)
    blocks = (size + BLOCK - 1) // BLOCK
    terms, flags, screens = carray(e, COEFFICIENTS[2]), carray(good, blocks), carray(out, blocks)
    room, room_bits = carray(scratch, BLOCK), carray(bits, BLOCK)
    for number in range(blocks):
        screens[number] = np.nan
        if flags[number]:
            part = slice(number * BLOCK, min((number + 1) * BLOCK, size))
            streams = wa[part], wb[part], first[part], second[part]
            _step_ratio(*streams, terms, rate, uncertainty, room)
            screens[number] = _largest(room_bits, part.stop - part.start)


@jit(reorder=True)
def _step_ratio(w_a, w_b, m, v, e, rate, uncertainty, out):  # type: ignore[no-untyped-def]
    terms = _terms(e)
    for i in range(m.size):
        x, y, slack = _step(
            np.float64(w_a[i]), np.float64(w_b[i]), np.float64(m[i]), np.float64(v[i]), terms
        )
        out[i] = np.float32(abs(y - rate * x) / (slack + uncertainty * abs(x)))
