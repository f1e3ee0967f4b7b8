"""The kernels of the pass over one chunk, in the part of Python that numba compiles.

Loops that only add, compare and mask are kept apart from those that scatter, because the former
become vector instructions; a block of values stays in the first-level cache between them.

A kernel takes pointers and lengths (:mod:`ckptools.stats.machine`); it allocates nothing and raises
nothing.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from ckptools.stats.constants import BLOCK, GOLDEN, MIX_1, MIX_2, SAFE
from ckptools.stats.jit import jit

_TOP = 1 << 16
_NAN = np.float32(np.nan)


def count_codes(codes, size, histogram):  # type: ignore[no-untyped-def]
    """Count each 8- or 16-bit code."""
    _count_codes(carray(codes, size), carray(histogram, _TOP))


@jit(reorder=False)
def _count_codes(codes, histogram):  # type: ignore[no-untyped-def]
    for i in range(codes.size):
        histogram[codes[i]] += 1


def scan_real(  # type: ignore[no-untyped-def]
    values,
    bits,
    signed,
    size,
    shift,
    top,
    low,
    infinity,
    wide,
    histogram,
    counts,
    extremes,
    running,
    scratch,
):
    """Measure floats, which are given as such and as unsigned and signed integers.

    Parameters
    ----------
    shift, top: to the top 16 bits, and to the sign.
    low, infinity: the bits below the sign, and those of infinity.
    wide: whether values can need an exponent.
    scratch: room for a block in float64.
    """
    values, bits, signed = carray(values, size), carray(bits, size), carray(signed, size)
    histogram, counts = carray(histogram, _TOP), carray(counts, 4)
    extremes, running, scratch = carray(extremes, 2), carray(running, 6), carray(scratch, BLOCK)
    half = histogram.size // 2
    for start in range(0, values.size, BLOCK):
        stop = min(start + BLOCK, values.size)
        block = values[start:stop]
        lowest = histogram[0] + histogram[half]
        _count_top(bits[start:stop], shift, histogram)
        if histogram[0] + histogram[half] != lowest:  # zeros are in there, and subnormals
            counts[0] += _zeros(signed[start:stop], low)
        smallest, largest = _extremes(bits[start:stop], signed[start:stop], low)
        kept = stop - start
        if largest >= infinity or smallest < -infinity:
            kept, smallest, largest = _keep_finite(
                block, signed[start:stop], top, low, infinity, scratch, counts
            )
            if kept == 0:
                continue
            exponent = _exponent(smallest, largest) if wide else 0
            centre = _centre(scratch[:kept], exponent, running)
            sums = _powers(scratch[:kept], centre, exponent)
        else:
            exponent = _exponent(smallest, largest) if wide else 0
            centre = _centre(block, exponent, running)
            sums = _powers(block, centre, exponent)
        extremes[0] = min(extremes[0], np.int64(smallest))
        extremes[1] = max(extremes[1], np.int64(largest))
        _merge(running, kept, centre, sums, exponent)


@jit(reorder=False)
def _count_top(bits, shift, histogram):  # type: ignore[no-untyped-def]
    for i in range(bits.size):
        histogram[bits[i] >> shift] += 1


@jit(reorder=False)
def _zeros(signed, low):  # type: ignore[no-untyped-def]
    zeros = 0
    for i in range(signed.size):
        zeros += (signed[i] & low) == 0
    return zeros


@jit(reorder=False)
def _extremes(bits, signed, low):  # type: ignore[no-untyped-def]
    """Return the extremes as integers in the order of the values.

    Positive floats are ordered as their bits are, and negative ones the other way round.  So the
    largest signed integer is the largest value if any is positive, and the largest unsigned one
    the smallest value if any is negative.
    """
    top = signed[0]
    high = bits[0]
    least = bits[0]
    for i in range(signed.size):
        top = max(top, signed[i])
        high = max(high, bits[i])
        least = min(least, bits[i])
    positive = top >= 0
    negative = signed.dtype.type(high) < 0
    nearest = signed.dtype.type(least)
    largest = top if positive else nearest ^ low
    smallest = signed.dtype.type(high) ^ low if negative else nearest
    return smallest, largest


@jit(reorder=False)
def _keep_finite(block, signed, top, low, infinity, scratch, counts):  # type: ignore[no-untyped-def]
    """Copy the finite values, count the others; return the number kept and their extremes."""
    smallest = low
    largest = signed.dtype.type(-low - 1)
    kept = 0
    for i in range(block.size):
        size = signed[i] & low
        if size > infinity:
            counts[1] += 1
        elif size == infinity:
            counts[2 if signed[i] > 0 else 3] += 1
        else:
            ordered = signed[i] ^ ((signed[i] >> top) & low)
            smallest = min(smallest, ordered)
            largest = max(largest, ordered)
            scratch[kept] = block[i]
            kept += 1
    return kept, smallest, largest


@jit(reorder=False)
def _exponent(smallest, largest):  # type: ignore[no-untyped-def]
    """Return :func:`ckptools.stats.moments.block_exponent` of float64 extremes."""
    size = max(np.int64(largest), -(np.int64(smallest) + 1))
    exponent = int(size >> 52) - 1022
    return 0 if size == 0 or (exponent >= -SAFE and exponent <= SAFE) else exponent


@jit(reorder=False)
def _scaled(value, power):  # type: ignore[no-untyped-def]
    """Return value times two to a power of at most 2046 either way, in two steps."""
    half = power // 2
    return value * _power_of_two(half) * _power_of_two(power - half)


@jit(reorder=False)
def _power_of_two(power):  # type: ignore[no-untyped-def]
    """Return two to the power, 0 for what is too small."""
    if power < -1022:
        return 0.0
    return np.int64((np.int64(power) + 1023) << 52).view(np.float64)


@jit(reorder=True)
def _centre(block, exponent, running):  # type: ignore[no-untyped-def]
    """Return a centre for the block: the mean so far, or the block's own at first.

    The mean so far will do, however far off it is, because then the distance between the two
    dominates the moments of all values together, and it is kept exactly.
    """
    if running[0] > 0.0 and int(running[5]) == exponent:
        return running[1]
    total = 0.0
    for i in range(block.size):
        total += _scaled(np.float64(block[i]), -exponent)
    return total / block.size


@jit(reorder=True)
def _powers(block, centre, exponent):  # type: ignore[no-untyped-def]
    """Return the sums of the first four powers of the deviations from the centre."""
    s1 = s2 = s3 = s4 = 0.0
    if exponent:
        for i in range(block.size):
            d = _scaled(np.float64(block[i]), -exponent) - centre
            square = d * d
            s1 += d
            s2 += square
            s3 += square * d
            s4 += square * square
    else:
        for i in range(block.size):
            d = np.float64(block[i]) - centre
            square = d * d
            s1 += d
            s2 += square
            s3 += square * d
            s4 += square * square
    return s1, s2, s3, s4


@jit(reorder=False)
def _merge(running, count, centre, sums, exponent):  # type: ignore[no-untyped-def]
    """Do :func:`ckptools.stats.moments.centred` and then ``merge`` into the running moments."""
    s1, s2, s3, s4 = sums
    shift = s1 / count
    mean = centre + shift
    m2 = max(s2 - shift * s1, 0.0)
    m3 = s3 - 3 * shift * s2 + 2 * shift * shift * s1
    m4 = max(s4 - 4 * shift * s3 + 6 * shift * shift * s2 - 3 * shift * shift * shift * s1, 0.0)
    na = running[0]
    nb = float(count)
    if na == 0.0:
        running[0], running[1], running[2] = nb, mean, m2
        running[3], running[4], running[5] = m3, m4, float(exponent)
        return
    common = max(int(running[5]), exponent)
    down = int(running[5]) - common
    if down:
        for power in range(1, 5):
            running[power] = _scaled(running[power], power * down)
        running[5] = float(common)
    down = exponent - common
    if down:
        mean, m2 = _scaled(mean, down), _scaled(m2, 2 * down)
        m3, m4 = _scaled(m3, 3 * down), _scaled(m4, 4 * down)
    n = na + nb
    part = (mean - running[1]) / n
    cross = part * part * n * na * nb
    running[4] += (
        m4
        + cross * part * part * (na * na - na * nb + nb * nb)
        + 6 * part * part * (na * na * m2 + nb * nb * running[2])
        + 4 * part * (na * m3 - nb * running[3])
    )
    running[3] += m3 + cross * part * (na - nb) + 3 * part * (na * m2 - nb * running[2])
    running[2] += m2 + cross
    running[1] += part * nb
    running[0] = n


def hash_leaves(words, size, first, second, leaf, leaves):  # type: ignore[no-untyped-def]
    """Hash each ``leaf`` words into a row of ``leaves`` under both keys."""
    count = (size + leaf - 1) // leaf
    keys = carray(first, leaf), carray(second, leaf)
    _hash_leaves(carray(words, size), keys[0], keys[1], carray(leaves, (count, 2)))


@jit(reorder=False)
def _hash_leaves(words, first, second, leaves):  # type: ignore[no-untyped-def]
    size = first.size
    for leaf in range(leaves.shape[0]):
        part = words[leaf * size : min((leaf + 1) * size, words.size)]
        leaves[leaf, 0], leaves[leaf, 1] = _nh(part, first, second)


@jit(reorder=False)
def _nh(words, first, second):  # type: ignore[no-untyped-def]
    half = np.uint64(32)
    mask = np.uint64(0xFFFFFFFF)
    one = np.uint64(0)
    two = np.uint64(0)
    for i in range(words.size):
        low = words[i] & mask
        high = words[i] >> half
        one += ((low + first[i]) & mask) * ((high + (first[i] >> half)) & mask)
        two += ((low + second[i]) & mask) * ((high + (second[i] >> half)) & mask)
    return one, two


def scan_rows(  # type: ignore[no-untyped-def]
    bits, size, start, columns, depth, mask, keys, alive, filled, empty
):
    """Note rows and columns that hold anything but zeros: see :func:`plain.scan_rows`."""
    rows = (start + size) // columns + 1
    notes = carray(keys, rows), carray(alive, rows), carray(filled, columns), carray(empty, 1)
    _scan_rows(
        carray(bits, size), start, columns, depth, mask, notes[0], notes[1], notes[2], notes[3]
    )


@jit(reorder=False)
def _scan_rows(bits, start, columns, depth, mask, keys, alive, filled, empty):  # type: ignore[no-untyped-def]
    at = 0
    while at < bits.size:
        row = (start + at) // columns
        column = (start + at) % columns
        row_part = bits[at : min(at + columns - column, bits.size)]
        if column < depth:
            keys[row] += _key(row_part[: min(row_part.size, depth - column)], column)
        if alive[row] == 0:
            for i in range(row_part.size):
                if row_part[i] & mask:
                    alive[row] = 1
                    break
        if empty[0] > 0:
            _fill(row_part, mask, filled[column : column + row_part.size], empty)
        at += row_part.size


@jit(reorder=False)
def _fill(row_part, mask, filled, empty):  # type: ignore[no-untyped-def]
    for i in range(row_part.size):
        if filled[i] == 0 and row_part[i] & mask:
            filled[i] = 1
            empty[0] -= 1


@jit(reorder=False)
def _key(head, column):  # type: ignore[no-untyped-def]
    total = np.uint64(0)
    for i in range(head.size):
        mixed = np.uint64(head[i]) + np.uint64(column + 1 + i) * np.uint64(GOLDEN)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(MIX_1)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(MIX_2)
        total += mixed ^ (mixed >> np.uint64(31))
    return total


def join_adam(  # type: ignore[no-untyped-def]
    weight, first, second, size, root, eps, tiny, wide_root, wide_eps, quotients, ordered, sums
):
    """Add sums over the Adam direction: see :func:`ckptools.stats.plain.join_adam`.

    Parameters
    ----------
    quotients, ordered: room for a block, as floats and as signed integers of their bits.
    """
    w, m, v = carray(weight, size), carray(first, size), carray(second, size)
    room, bits, found = carray(quotients, BLOCK), carray(ordered, BLOCK), carray(sums, 4)
    for start in range(0, size, BLOCK):
        part = slice(start, min(start + BLOCK, size))
        settings = root, eps, tiny, wide_root, wide_eps
        _join_block(w[part], m[part], v[part], settings, room, bits, found)


def join_bits(  # type: ignore[no-untyped-def]
    weight,
    first,
    second,
    size,
    shift,
    root,
    eps,
    tiny,
    wide_root,
    wide_eps,
    quotients,
    ordered,
    streams,
    streams_bits,
    sums,
):
    """Do :func:`join_adam` for the bits of floats of 32 bits, or for their upper half.

    Parameters
    ----------
    shift: of each stream: 16 where it is an upper half, else 0.
    streams, streams_bits: room for a block of each, as floats and as their bits.
    """
    w, m, v = carray(weight, size), carray(first, size), carray(second, size)
    wide, wide_bits = carray(streams, (3, BLOCK)), carray(streams_bits, (3, BLOCK))
    room, bits, found = carray(quotients, BLOCK), carray(ordered, BLOCK), carray(sums, 4)
    shifts = carray(shift, 3)
    for start in range(0, size, BLOCK):
        part = slice(start, min(start + BLOCK, size))
        _widen(w[part], shifts[0], wide_bits[0])
        _widen(m[part], shifts[1], wide_bits[1])
        _widen(v[part], shifts[2], wide_bits[2])
        count = slice(0, min(BLOCK, size - start))
        settings = root, eps, tiny, wide_root, wide_eps
        _join_block(wide[0][count], wide[1][count], wide[2][count], settings, room, bits, found)


@jit(reorder=False)
def _widen(part, shift, bits):  # type: ignore[no-untyped-def]
    for i in range(part.size):
        bits[i] = np.uint32(part[i]) << shift


@jit(reorder=False)
def _join_block(w, m, v, settings, quotients, ordered, sums):  # type: ignore[no-untyped-def]
    root, eps, tiny, wide_root, wide_eps = settings
    squares, products = _direction(w, m, v, root, eps)
    count = w.size
    if not (math.isfinite(squares) and math.isfinite(products)):
        squares, products, count = _finite_direction(w, m, v, wide_root, wide_eps)
    sums[0] += squares
    sums[1] += products
    sums[2] += count
    largest = _largest_quotient(m, v, tiny, quotients, ordered)
    if largest > sums[3]:
        sums[3] = largest


@jit(reorder=False)
def _largest_quotient(m, v, tiny, quotients, ordered):  # type: ignore[no-untyped-def]
    """Return the largest m squared over v + tiny; ``ordered`` is the memory of ``quotients``.

    Floats above zero are ordered as their bits are, and a maximum of integers is found by vectors.
    """
    for i in range(m.size):
        quotients[i] = m[i] * m[i] / (v[i] + tiny)
    largest = ordered[0]
    for i in range(m.size):
        largest = max(largest, ordered[i])
    ordered[0] = largest
    return np.float64(quotients[0])


@jit(reorder=False)
def _root(value):  # type: ignore[no-untyped-def]
    """Return the square root in the type of the value, NaN of a negative one."""
    return math.sqrt(value) if value >= 0 else value * _NAN


@jit(reorder=True)
def _direction(w, m, v, root, eps):  # type: ignore[no-untyped-def]
    squares = 0.0
    products = 0.0
    for i in range(w.size):
        u = np.float64(m[i] / (root * _root(v[i]) + eps))
        squares += u * u
        products += u * np.float64(w[i])
    return squares, products


@jit(reorder=False)
def _finite_direction(w, m, v, root, eps):  # type: ignore[no-untyped-def]
    squares = 0.0
    products = 0.0
    count = 0
    for i in range(w.size):
        below = root * math.sqrt(v[i]) + eps if v[i] >= 0 else 0.0
        u = np.float64(m[i]) / below if below > 0 else np.inf
        if math.isfinite(u) and math.isfinite(w[i]):
            squares += u * u
            products += u * w[i]
            count += 1
    return squares, products, count
