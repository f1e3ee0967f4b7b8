"""The pass over one chunk compiled by numba; the same functions as :mod:`ckptools.stats.plain`.

Importing this module loads numba, and fails with OSError where compiled code cannot be kept (see
:mod:`ckptools.stats.jit`); the caller stays with numpy then.

Loops that only add, compare and mask are kept apart from those that scatter, because the former
become vector instructions; a block of 4096 values stays in the first-level cache between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numba
import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from ckptools.stats import digest
from ckptools.stats.families import Family
from ckptools.stats.jit import jit
from ckptools.stats.moments import SAFE
from ckptools.stats.plain import GOLDEN, MIX_1, MIX_2, TINY

BLOCK = 4096


def prepare(families: Iterable[Family], *, joint: bool) -> None:
    """Load or compile all that values of these families need, by measuring none of them.

    Raises
    ------
    OSError: the cache folder took a file of ours before and does no longer.
    """
    known = set(families)
    histogram = np.zeros(1 << 16, dtype=np.int64)
    hash_leaves(np.empty(0, np.uint64), np.empty((0, 2), np.uint64))
    for bits in {family.bits for family in known}:
        notes = np.empty(0, np.uint64), np.empty(0, np.uint8), np.empty(0, np.uint8)
        scan_rows(np.empty(0, bits), 0, 1, 1, 1, *notes, np.zeros(1, np.int64))
    for bits in {family.bits for family in known if family.kind == "codes"}:
        count_codes(np.empty(0, bits), histogram)
    reals = {family.number for family in known if family.kind == "real"}
    if any(family.kind == "complex" for family in known):
        reals.add(np.dtype(np.float64))
    for number in reals:
        tallies = np.zeros(4, np.int64), np.zeros(2, np.int64), np.zeros(6)
        scan_real(np.empty(0, number), histogram, *tallies)
    if joint:
        nothing = np.empty(0, np.float32)
        join_adam(nothing, nothing, nothing, 1.0, 1.0, np.zeros(4))


def count_codes(codes: NDArray[Any], histogram: NDArray[np.int64]) -> None:
    """Count each 8- or 16-bit code."""
    _count_codes(codes, histogram)


@jit(reorder=False)
def _count_codes(codes, histogram):  # type: ignore[no-untyped-def]
    for i in range(codes.size):
        histogram[codes[i]] += 1


def scan_real(
    values: NDArray[Any],
    histogram: NDArray[np.int64],
    counts: NDArray[np.int64],
    extremes: NDArray[np.int64],
    running: NDArray[np.float64],
) -> None:
    """Measure float32 or float64 values: see :class:`ckptools.stats.kernel.Tallies`."""
    constants = _CONSTANTS[values.itemsize]
    _scan_real(
        values,
        values.view(constants[0]),
        values.view(constants[1]),
        *constants[2:],
        histogram,
        counts,
        extremes,
        running,
    )


def _constants(size: int) -> tuple[Any, ...]:
    """Return what the scan needs to know of floats of so many bytes, in types of their width.

    That is: the two integer types; the shift to the top 16 bits; the place of the sign; the bits
    below it; infinity; whether values can need an exponent.
    """
    unsigned, signed = np.dtype(f"u{size}"), np.dtype(f"i{size}")
    infinity = np.dtype(f"f{size}").type(np.inf).view(signed)
    return (
        unsigned,
        signed,
        unsigned.type(8 * size - 16),
        signed.type(8 * size - 1),
        signed.type(np.iinfo(signed).max),
        infinity,
        size == 8,
    )


_CONSTANTS = {size: _constants(size) for size in (4, 8)}


@jit(reorder=False)
def _scan_real(  # type: ignore[no-untyped-def]
    values,
    bits,
    signed,
    shift,
    top,
    low,
    infinity,
    wide,
    histogram,
    counts,
    extremes,
    running,
):
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
            scratch = np.empty(BLOCK)
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
        total += math.ldexp(np.float64(block[i]), -exponent)
    return total / block.size


@jit(reorder=True)
def _powers(block, centre, exponent):  # type: ignore[no-untyped-def]
    """Return the sums of the first four powers of the deviations from the centre."""
    s1 = s2 = s3 = s4 = 0.0
    if exponent:
        for i in range(block.size):
            d = math.ldexp(np.float64(block[i]), -exponent) - centre
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
            running[power] = math.ldexp(running[power], power * down)
        running[5] = float(common)
    down = exponent - common
    if down:
        mean, m2 = math.ldexp(mean, down), math.ldexp(m2, 2 * down)
        m3, m4 = math.ldexp(m3, 3 * down), math.ldexp(m4, 4 * down)
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


def hash_leaves(words: NDArray[np.uint64], leaves: NDArray[np.uint64]) -> None:
    """Hash each leaf of ``words`` into a row of ``leaves``; the last leaf may be short."""
    first, second = digest.keys()
    _hash_leaves(words, first, second, leaves)


@jit(reorder=False)
def _hash_leaves(words, first, second, leaves):  # type: ignore[no-untyped-def]
    size = first.size
    for leaf in range((words.size + size - 1) // size):
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


def scan_rows(
    bits: NDArray[Any],
    start: int,
    columns: int,
    depth: int,
    magnitude: int,
    keys: NDArray[np.uint64],
    alive: NDArray[np.uint8],
    filled: NDArray[np.uint8],
    empty: NDArray[np.int64],
) -> None:
    """Note rows and columns that hold anything but zeros: see :func:`plain.scan_rows`."""
    mask = bits.dtype.type(magnitude)
    _scan_rows(bits, start, columns, depth, mask, keys, alive, filled, empty)


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


def join_adam(
    weight: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    root: float,
    eps: float,
    sums: NDArray[np.float64],
) -> None:
    """Add sums over the Adam direction: see :func:`ckptools.stats.plain.join_adam`."""
    number, ordered = _WIDTHS[first.dtype == np.float64]
    quotients = np.empty(BLOCK, number)
    constants = number(root), number(eps), number(TINY[quotients.itemsize])
    block = quotients, quotients.view(ordered)
    _join_adam(weight, first, second, *constants, *block, root, eps, sums)


_WIDTHS = {False: (np.float32, np.int32), True: (np.float64, np.int64)}


def _floats(part: NDArray[Any], scratch: NDArray[np.uint32]) -> NDArray[Any]:
    """Return floats as they are, and the bits of bfloat16 widened to float32 in ``scratch``."""
    return _widened(part, scratch) if part.dtype == np.uint16 else part


@overload(_floats)
def _choose_floats(part, scratch):  # type: ignore[no-untyped-def]
    """Choose by type when compiling; numba wants the very same signatures."""
    if part.dtype == numba.types.uint16:
        return lambda part, scratch: _widened(part, scratch)  # noqa: PLW0108
    return lambda part, scratch: part


@jit(reorder=False)
def _widened(part, scratch):  # type: ignore[no-untyped-def]
    for i in range(part.size):
        scratch[i] = np.uint32(part[i]) << np.uint32(16)
    return scratch[: part.size].view(np.float32)


@jit(reorder=False)
def _join_adam(  # type: ignore[no-untyped-def]
    weight, first, second, root, eps, tiny, quotients, ordered, wide_root, wide_eps, sums
):
    scratch = np.empty((3, BLOCK), dtype=np.uint32)
    for start in range(0, weight.size, BLOCK):
        stop = min(start + BLOCK, weight.size)
        w = _floats(weight[start:stop], scratch[0])
        m = _floats(first[start:stop], scratch[1])
        v = _floats(second[start:stop], scratch[2])
        squares, products = _direction(w, m, v, root, eps)
        count = stop - start
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


@jit(reorder=True)
def _direction(w, m, v, root, eps):  # type: ignore[no-untyped-def]
    squares = 0.0
    products = 0.0
    for i in range(w.size):
        u = np.float64(m[i] / (root * np.sqrt(v[i]) + eps))
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
