"""The pass over one chunk in numpy: ready at once, and the reference for the compiled one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.stats import digest, moments
from ckptools.stats.constants import GOLDEN, MIX_1, MIX_2, TINY

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

#: elements that are centred together; their float64 copies stay in the cache
BLOCK = 1 << 15
#: so few codes are counted one by one; more are counted into a histogram of their own
_FEW = 1 << 12


def count_codes(codes: NDArray[Any], histogram: Ints) -> None:
    """Count each 8- or 16-bit code."""
    if codes.size < _FEW:
        np.add.at(histogram, codes, 1)
    else:
        histogram += np.bincount(codes, minlength=histogram.size)


def scan_real(
    values: NDArray[Any], histogram: Ints, counts: Ints, extremes: Ints, running: Floats
) -> None:
    """Measure float32 or float64 values: see :class:`ckptools.stats.kernel.Tallies`."""
    bits = values.view(f"u{values.itemsize}")
    count_codes((bits >> (8 * values.itemsize - 16)).astype(np.int64), histogram)
    counts[0] += np.count_nonzero(values == 0)
    finite = np.isfinite(values)
    if not finite.all():
        counts[1] += np.count_nonzero(np.isnan(values))
        counts[2] += np.count_nonzero(np.isposinf(values))
        counts[3] += np.count_nonzero(np.isneginf(values))
        values = values[finite]
    if values.size:
        _extend(extremes, values)
        for start in range(0, values.size, BLOCK):
            moments.accumulate(running, moments.of_values(values[start : start + BLOCK]))


def _extend(extremes: Ints, values: NDArray[Any]) -> None:
    """Widen the extremes, kept as integers in the order of the values."""
    signed = np.array([values.min(), values.max()]).view(f"i{values.itemsize}")
    ordered = signed ^ ((signed >> (8 * values.itemsize - 1)) & np.iinfo(signed.dtype).max)
    extremes[0] = min(int(extremes[0]), int(ordered[0]))
    extremes[1] = max(int(extremes[1]), int(ordered[1]))


def hash_leaves(words: Words, leaves: Words) -> None:
    """Hash each leaf of ``words`` into a row of ``leaves``; the last leaf may be short."""
    whole = words.size // digest.WORDS
    table = words[: whole * digest.WORDS].reshape(whole, digest.WORDS)
    for column, key in enumerate(digest.keys()):
        for start in range(0, whole, 16):
            leaves[start : min(start + 16, whole), column] = _nh(table[start : start + 16], key)
        rest = words[whole * digest.WORDS :]
        if rest.size:
            leaves[whole, column] = _nh(rest.reshape(1, -1), key[: rest.size])[0]


def _nh(table: Words, key: Words) -> Words:
    """Return the sums of products of 32-bit halves: the hash NH of UMAC (Black et al. 1999)."""
    mixed = (table.view(np.uint32) + key.view(np.uint32)).view(np.uint64)
    product = (mixed & np.uint64(0xFFFFFFFF)) * (mixed >> np.uint64(32))
    summed: Words = product.sum(axis=1, dtype=np.uint64)
    return summed


def scan_rows(
    bits: NDArray[Any],
    start: int,
    columns: int,
    depth: int,
    magnitude: int,
    keys: Words,
    alive: NDArray[np.uint8],
    filled: NDArray[np.uint8],
    empty: Ints,
) -> None:
    """Note which rows and columns hold anything but zeros, and add up row keys.

    ``start`` is the place of the first element, counted from the first row of ``keys`` and
    ``alive``; ``empty`` holds the number of columns not yet ``filled``.
    """
    row, column = divmod(start, columns)
    taken = 0
    if column or bits.size < columns:
        taken = min(columns - column, bits.size)
        _rows(bits[None, :taken], row, column, depth, magnitude, keys, alive, filled, empty)
        row += 1
    whole = (bits.size - taken) // columns
    if whole:
        block = bits[taken : taken + whole * columns].reshape(whole, columns)
        _rows(block, row, 0, depth, magnitude, keys, alive, filled, empty)
        taken += whole * columns
        row += whole
    if taken < bits.size:
        _rows(bits[None, taken:], row, 0, depth, magnitude, keys, alive, filled, empty)


def _rows(
    block: NDArray[Any],
    row: int,
    column: int,
    depth: int,
    magnitude: int,
    keys: Words,
    alive: NDArray[np.uint8],
    filled: NDArray[np.uint8],
    empty: Ints,
) -> None:
    """Do :func:`scan_rows` for a block of rows that all begin at ``column``."""
    rows = slice(row, row + block.shape[0])
    mask = block.dtype.type(magnitude)
    if column < depth:
        keys[rows] += _keys(block[:, : depth - column], column)
    if not alive[rows].all() and not _heads_alive(block[:, :16] & mask, alive[rows]):
        alive[rows] |= (block & mask).any(axis=1)
    if empty[0]:
        part = filled[column : column + block.shape[1]]
        before = np.count_nonzero(part)
        part |= (block & mask).any(axis=0)
        empty[0] -= np.count_nonzero(part) - before


def _heads_alive(heads: NDArray[Any], alive: NDArray[np.uint8]) -> bool:
    """Mark the rows whose first elements tell that they are alive; return whether all do."""
    alive |= heads.any(axis=1)
    return bool(alive.all())


def _keys(head: NDArray[Any], column: int) -> Words:
    """Return the sums over columns of a mixture of each element's bits and its column."""
    salt = np.arange(column + 1, column + 1 + head.shape[1], dtype=np.uint64) * np.uint64(GOLDEN)
    mixed = head.astype(np.uint64) + salt
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(MIX_1)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(MIX_2)
    mixed ^= mixed >> np.uint64(31)
    summed: Words = mixed.sum(axis=1, dtype=np.uint64)
    return summed


def join_adam(
    weight: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    root: float,
    eps: float,
    sums: Floats,
) -> None:
    """Add sums over u = m / (root * sqrt(v) + eps): of u squared, of w * u, and the count.

    Elements of which u or w is not finite are left out (v is negative, or 0 with eps).  The fourth
    place keeps the largest m squared over v + TINY; it means something only where every m and v
    is finite and no v negative.
    """
    tiny = TINY[8 if first.dtype == np.float64 else 4]
    for start in range(0, first.size, BLOCK):
        w, m, v = (_wide(part[start : start + BLOCK]) for part in (weight, first, second))
        with np.errstate(all="ignore"):
            u = m / (root * np.sqrt(v) + eps)
            square = m * m / (v + tiny)
        sums[3] = max(sums[3], np.fmax.reduce(square, initial=0.0))
        kept = np.isfinite(u) & np.isfinite(w)
        if not kept.all():
            u, w = u[kept], w[kept]
        sums[:3] += (u * u).sum(), (w * u).sum(), u.size


def _wide(part: NDArray[Any]) -> Floats:
    """Return float64 values; uint16 holds the bits of bfloat16, the upper half of a float32."""
    if part.dtype == np.uint16:
        part = (part.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return part.astype(np.float64)
