"""Sums and screens over two files compiled by numba, one pass over a chunk of every stream.

Importing this module loads numba, and fails with OSError where compiled code cannot be kept (see
:mod:`ckptools.stats.jit`); the caller stays with numpy then.

The sums are those of :mod:`ckptools.compare.distances`.  A *screen* is an upper bound of the
ratios of :mod:`ckptools.compare.bounds` over one block of elements, cheaper than the ratio: where
it stays below 1 nothing there can be impossible, and only blocks where it does not are judged by
the exact code (:mod:`ckptools.compare.screens` has the numbers and why they bound).

Maxima are taken over the bits of float32: they are ordered as the values are, a NaN comes last,
and integer maxima become vector instructions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.compare.screens import BLOCK, COEFFICIENTS
from ckptools.stats.jit import jit

#: rows of the flags that :func:`adam` clears: the three pairs of streams, and the direction
WEIGHTS, FIRST, SECOND, DIRECTION = range(4)


def prepare() -> None:
    """Load or compile everything, by comparing nothing."""
    nothing, flags = np.empty(0, np.float32), np.empty((4, 0), np.uint8)
    pair_sums(nothing, nothing, np.zeros(6), flags[0])
    streams = (nothing,) * 7
    constants = (np.zeros(COEFFICIENTS[0]), np.zeros(COEFFICIENTS[1]))
    adam(*streams, True, *constants, 1.0, np.zeros((4, 6)), flags, np.empty((0, 4), np.float32))


def prepare_single_step() -> None:
    """Load or compile what only direct successors need."""
    nothing, step = np.empty(0, np.float32), np.zeros(COEFFICIENTS[2])
    streams = (nothing,) * 4
    step_sums(*streams, step, np.zeros(5), np.empty(0, np.uint8))
    step_screen(*streams, step, 1.0, 0.0, np.empty(0, np.uint8), np.empty(0, np.float32))


@jit(reorder=False)
def pair_sums(a, b, sums, good):  # type: ignore[no-untyped-def]
    """Add the sums of two streams, block by block; clear ``good`` where one is not finite."""
    scratch = np.empty(BLOCK, np.float32)
    for number in range(good.size):
        start = number * BLOCK
        stop = min(start + BLOCK, a.size)
        good[number] = _add(a[start:stop], b[start:stop], sums, scratch)


@jit(reorder=False)
def adam(  # type: ignore[no-untyped-def]
    w_a, w_b, m_a, m_b, v_a, v_b, v_used, weights, c, d, eps, sums, good, out
):
    """Do all there is to do with Adam's moments in both files, and the weight where there is one.

    Parameters
    ----------
    v_used: the second moment that the update divides by (AMSGrad's maximum).
    weights: whether the first two streams are a weight; they are not looked at otherwise.
    c, d: coefficients of :class:`~ckptools.compare.screens.Screen`.
    sums: rows as in :func:`pair_sums` for weight, first and second moment; the last row takes
        Σstep², Σmoved·step and Σmoved² with step = −m/(√v + eps) and moved = w_b − w_a.
    good: rows of flags by block, set where the block was finite and entered these sums.
    out: screens by block and bound, NaN where there is none: a block that is not finite, or holds
        a negative second moment.
    """
    scratch = np.empty(BLOCK, np.float32)
    for number in range(good.shape[1]):
        start = number * BLOCK
        stop = min(start + BLOCK, m_a.size)
        room = scratch[: stop - start]
        bits = room.view(np.int32)
        wa, wb = w_a[start:stop], w_b[start:stop]
        ma, mb = m_a[start:stop], m_b[start:stop]
        va, vb = v_a[start:stop], v_b[start:stop]
        good[1, number] = _add(ma, mb, sums[1], scratch)
        good[2, number] = _add(va, vb, sums[2], scratch)
        whole = good[1, number] and good[2, number]
        if weights:
            good[0, number] = _add(wa, wb, sums[0], scratch)
            whole = whole and good[0, number]
            good[3, number] = 0
            if whole:
                squares, products, moved = _direction(wa, wb, mb, v_used[start:stop], eps)
                if math.isfinite(squares) and math.isfinite(products):
                    good[3, number] = 1
                    sums[3, 0] += squares
                    sums[3, 1] += products
                    sums[3, 2] += moved
        least_a, least_b = _least(va), _least(vb)
        if not whole or least_a < 0 or least_b < 0:
            out[number, :] = np.nan
            continue
        _moment(mb, vb, c, room)
        out[number, 0] = _largest(bits)
        _decay(va, vb, c, room)
        out[number, 1] = _largest(bits)
        _innovation(ma, mb, va, vb, c, room)
        out[number, 2] = _largest(bits)
        if c[7] != 0:
            _fresh_second(ma, mb, va, vb, c, room)
            out[number, 2] = max(out[number, 2], _largest(bits))
        if weights:
            if least_a > d[4] and least_b > 0:
                _tight(wa, wb, ma, va, vb, d, room)
            else:
                _near(wa, wb, ma, va, vb, d, room)
            out[number, 3] = _largest(bits)


@jit(reorder=False)
def _add(a, b, sums, scratch):  # type: ignore[no-untyped-def]
    """Add the sums of one block and return whether it was finite."""
    squares_a, squares_b, product, squares = _products(a, b, scratch)
    if not math.isfinite(squares_a + squares_b):
        return 0
    sums[0] += squares_a
    sums[1] += squares_b
    sums[2] += product
    sums[3] += squares
    sums[4] = max(sums[4], _largest(scratch[: a.size].view(np.int32)))
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
def _largest(bits):  # type: ignore[no-untyped-def]
    """Return the largest of floats that are not negative, given as their bits."""
    top = np.zeros(1, np.int32)
    for i in range(bits.size):
        top[0] = max(top[0], bits[i])
    return top.view(np.float32)[0]


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
    lowest = np.empty(1, np.int32)
    lowest[0] = least
    return lowest.view(np.float32)[0]


@jit(reorder=True)
def _tight(w_a, w_b, m_a, v_a, v_b, c, out):  # type: ignore[no-untyped-def]
    """T alone: every second moment is far above eps and underflow."""
    a0, a1, a2, a3, a4, a5 = c[12], c[13], c[14], c[15], c[16], c[17]
    b0, b1, b2, b3, b4, b5 = c[18], c[19], c[20], c[21], c[22], c[23]
    for i in range(m_a.size):
        older, newer, v = np.float64(w_a[i]), np.float64(w_b[i]), np.float64(v_a[i])
        x = v / np.float64(v_b[i])
        energy = max(a0 - b0 * x, a1 - b1 * x, a2 - b2 * x, a3 - b3 * x, a4 - b4 * x, a5 - b5 * x)
        energy = max(energy, 0.0)
        limit = c[2] * abs(np.float64(m_a[i])) / math.sqrt(v) + c[3] * math.sqrt(energy)
        limit = min(limit, c[1])
        size = abs(older)
        whole = limit * c[6] + size * c[5] + c[7] + c[8] * (size + abs(newer))
        out[i] = np.float32(abs(newer - c[0] * older) / whole)


@jit(reorder=True)
def _near(w_a, w_b, m_a, v_a, v_b, c, out):  # type: ignore[no-untyped-def]
    """T and, where the second moment is near eps or underflow, EL."""
    a0, a1, a2, a3, a4, a5 = c[12], c[13], c[14], c[15], c[16], c[17]
    b0, b1, b2, b3, b4, b5 = c[18], c[19], c[20], c[21], c[22], c[23]
    for i in range(m_a.size):
        older, newer, v = np.float64(w_a[i]), np.float64(w_b[i]), np.float64(v_a[i])
        size, first = abs(older), abs(np.float64(m_a[i]))
        after = np.float64(v_b[i])
        root = math.sqrt(v)
        x = v / max(after, 1e-300)
        energy = max(a0 - b0 * x, a1 - b1 * x, a2 - b2 * x, a3 - b3 * x, a4 - b4 * x, a5 - b5 * x)
        energy = max(energy, 0.0)
        limit = c[2] * first / max(root, 1e-150) + c[3] * math.sqrt(energy)
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


@jit(reorder=False)
def step_sums(w_a, w_b, m, v, e, sums, good):  # type: ignore[no-untyped-def]
    """Add Σxy, Σx², Σ|x|s, Σy² and the count over the good blocks; clear those with other values.

    ``e`` holds :class:`~ckptools.compare.bounds.replay.StepTerms`.
    """
    for number in range(good.size):
        if good[number]:
            start = number * BLOCK
            part = slice(start, min(start + BLOCK, m.size))
            products, squares, slack, rest = _step_sums(w_a[part], w_b[part], m[part], v[part], e)
            if math.isfinite(products + squares + slack + rest):
                sums[0] += products
                sums[1] += squares
                sums[2] += slack
                sums[3] += rest
                sums[4] += m[part].size
            else:
                good[number] = 0


@jit(reorder=True)
def _step_sums(w_a, w_b, m, v, e):  # type: ignore[no-untyped-def]
    products = squares = weighted = rest = 0.0
    for i in range(m.size):
        older, newer, after = np.float64(w_a[i]), np.float64(w_b[i]), np.float64(v[i])
        root = math.sqrt(after) / e[1] + e[2]
        x = np.float64(m[i]) / (e[0] * root) + e[3] * older
        y = older - newer
        lost = e[6] / after if after > 0 else e[7]
        slack = e[4] * max(abs(older), abs(newer)) + (e[5] + lost) * abs(y)
        slack += e[6] * (1 + 2 / (e[0] * root)) + e[8] * (abs(older) + abs(newer)) + e[9]
        products += x * y
        squares += x * x
        weighted += abs(x) * slack
        rest += y * y
    return products, squares, weighted, rest


@jit(reorder=False)
def step_screen(w_a, w_b, m, v, e, rate, uncertainty, good, out):  # type: ignore[no-untyped-def]
    """Fill in the screen of replay for every block, NaN where one is not good."""
    scratch = np.empty(BLOCK, np.float32)
    for number in range(good.size):
        out[number] = np.nan
        if good[number]:
            start = number * BLOCK
            stop = min(start + BLOCK, m.size)
            part, room = slice(start, stop), scratch[: stop - start]
            _step_ratio(w_a[part], w_b[part], m[part], v[part], e, rate, uncertainty, room)
            out[number] = _largest(room.view(np.int32))


@jit(reorder=True)
def _step_ratio(w_a, w_b, m, v, e, rate, uncertainty, out):  # type: ignore[no-untyped-def]
    for i in range(m.size):
        older, newer, after = np.float64(w_a[i]), np.float64(w_b[i]), np.float64(v[i])
        root = math.sqrt(after) / e[1] + e[2]
        x = np.float64(m[i]) / (e[0] * root) + e[3] * older
        y = older - newer
        lost = e[6] / after if after > 0 else e[7]
        slack = e[4] * max(abs(older), abs(newer)) + (e[5] + lost) * abs(y)
        slack += e[6] * (1 + 2 / (e[0] * root)) + e[8] * (abs(older) + abs(newer)) + e[9]
        out[i] = np.float32(abs(y - rate * x) / (slack + uncertainty * abs(x)))


def as_single(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return values of at most single precision as float32; every one of them is kept exactly."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.float32, copy=False)
