"""The pass over one chunk in machine code; the same functions as :mod:`ckptools.stats.plain`.

What numba made of :mod:`ckptools.stats.kernels` is loaded by :mod:`ckptools.stats.machine`, and
made where it is not there yet.  That fails with OSError where it cannot be kept; the caller stays
with numpy then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.stats import digest
from ckptools.stats.constants import BLOCK, TINY
from ckptools.stats.families import Family
from ckptools.stats.machine import Kernel, compiling


def _kernel(name: str) -> Kernel:
    return Kernel("ckptools.stats.kernels", name, ("ckptools.stats.constants",))


_COUNT_CODES = _kernel("count_codes")
_SCAN_REAL = _kernel("scan_real")
_HASH_LEAVES = _kernel("hash_leaves")
_SCAN_ROWS = _kernel("scan_rows")
_JOIN_ADAM, _JOIN_BITS = _kernel("join_adam"), _kernel("join_bits")


def prepare(
    families: Iterable[Family],
    joints: Iterable[tuple[np.dtype[Any], ...]] = (),
    *,
    anew: bool = True,
) -> None:
    """Load all that values of these families and types need, by measuring none of them.

    Parameters
    ----------
    joints: types of what :func:`join_adam` is to take.
    anew: whether to compile what is not compiled yet.

    Raises
    ------
    OSError: what is compiled cannot be kept.
    RuntimeError, ImportError: it is not compiled yet, or cannot be.
    """
    known = set(families)
    histogram = np.zeros(1 << 16, dtype=np.int64)
    codes = {family.bits for family in known if family.kind == "codes"}
    codes |= {np.dtype(np.uint16) for family in known if family.kind == "integer"}
    reals = {family.number for family in known if family.kind == "real"}
    reals |= {np.dtype(np.float64) for family in known if family.kind == "complex"}
    with compiling(anew):
        hash_leaves(np.empty(0, np.uint64), np.empty((0, 2), np.uint64))
        for bits in {family.bits for family in known}:
            notes = np.empty(1, np.uint64), np.empty(1, np.uint8), np.empty(1, np.uint8)
            scan_rows(np.empty(0, bits), 0, 1, 1, 1, *notes, np.zeros(1, np.int64))
        for bits in codes:
            count_codes(np.empty(0, bits), histogram)
        for number in reals:
            tallies = np.zeros(4, np.int64), np.zeros(2, np.int64), np.zeros(6)
            scan_real(np.empty(0, number), histogram, *tallies)
        for kinds in set(joints):
            weight, first, second = (np.empty(0, kind) for kind in kinds)
            join_adam(weight, first, second, 1.0, 1.0, np.zeros(4))


def count_codes(codes: NDArray[Any], histogram: NDArray[np.int64]) -> None:
    """Count each 8- or 16-bit code."""
    _COUNT_CODES(codes, codes.size, histogram)


def scan_real(
    values: NDArray[Any],
    histogram: NDArray[np.int64],
    counts: NDArray[np.int64],
    extremes: NDArray[np.int64],
    running: NDArray[np.float64],
) -> None:
    """Measure float32 or float64 values: see :class:`ckptools.stats.kernel.Tallies`."""
    unsigned, signed, *constants = _CONSTANTS[values.itemsize]
    views = values, values.view(unsigned), values.view(signed)
    tallies = histogram, counts, extremes, running
    _SCAN_REAL(*views, values.size, *constants, *tallies, np.empty(BLOCK))


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


def hash_leaves(words: NDArray[np.uint64], leaves: NDArray[np.uint64]) -> None:
    """Hash each leaf of ``words`` into a row of ``leaves``; the last leaf may be short."""
    _HASH_LEAVES(words, words.size, *digest.keys(), digest.WORDS, leaves)


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
    _SCAN_ROWS(bits, bits.size, start, columns, depth, mask, keys, alive, filled, empty)


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
    settings = number(root), number(eps), number(TINY[quotients.itemsize]), float(root), float(eps)
    room = quotients, quotients.view(ordered)
    streams = weight, first, second
    if all(part.dtype == number for part in streams):
        _JOIN_ADAM(*streams, weight.size, *settings, *room, sums)
        return
    bits = [part if part.dtype == np.uint16 else part.view(np.uint32) for part in streams]
    shift = np.array([16 if part.dtype == np.uint16 else 0 for part in streams], np.uint32)
    wide = np.empty((3, BLOCK), np.float32)
    _JOIN_BITS(*bits, weight.size, shift, *settings, *room, wide, wide.view(np.uint32), sums)


_WIDTHS: dict[Any, tuple[Any, Any]] = {False: (np.float32, np.int32), True: (np.float64, np.int64)}
