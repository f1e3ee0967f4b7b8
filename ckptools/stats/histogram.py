"""The histogram of the top 16 bits of every value, and what can be read from it alone.

For types of 8 and 16 bits it holds every value, so everything read from it is exact.  For wider
ones a bin spans 2**-7 (float32) or 2**-4 (float64) of its value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.stats.families import Bins, bins

Codes = NDArray[np.int64]
Counts = NDArray[np.int64]

#: a sketch keeps at most about this many bins
SKETCH_BINS = 256
#: at most this many elements, and this share of those that are not zero, count as isolated
ISOLATED = 8
ISOLATED_SHARE = 1e-3


@dataclass(frozen=True, slots=True)
class Ascending:
    """The finite bins of a histogram in the order of their values.

    ``ends`` are the numbers of values in each bin and all below it, ``total`` is the last of them.
    """

    codes: Codes
    counts: Counts
    ends: Counts
    total: int


@dataclass(frozen=True)
class Histogram:
    """Populated codes in ascending order of the code, and how often each occurs."""

    dtype: str
    codes: Codes
    counts: Counts

    @cached_property
    def meaning(self) -> Bins:
        """What the codes stand for."""
        return bins(self.dtype)

    @cached_property
    def ascending(self) -> Ascending:
        """The finite bins in the order of their values."""
        codes, counts = self.codes, self.counts
        meaning = self.meaning
        if meaning.order != "unsigned":
            split = int(codes.searchsorted(meaning.lower.size // 2))
            back = -1 if meaning.order == "sign-magnitude" else 1
            codes = np.concatenate((codes[split:][::back], codes[:split]))
            counts = np.concatenate((counts[split:][::back], counts[:split]))
        finite = meaning.finite[codes]
        if not finite.all():
            codes, counts = codes[finite], counts[finite]
        ends = counts.cumsum()
        return Ascending(codes, counts, ends, int(ends[-1]) if ends.size else 0)

    def count(self, flags: NDArray[np.bool_]) -> int:
        """Return how many values have a code that is flagged."""
        return int(self.counts[flags[self.codes]].sum())


def size(dtype: str) -> int:
    """Return the number of codes of ``dtype``."""
    return int(bins(dtype).lower.size)


def compact(dtype: str, dense: NDArray[np.int64]) -> Histogram:
    """Return the populated bins of a dense histogram, and clear it."""
    codes = (dense != 0).nonzero()[0]  # seven times as fast as on the numbers themselves
    counts = dense[codes]
    dense[codes] = 0
    return Histogram(dtype, codes, counts)


def merge(parts: Sequence[Histogram]) -> Histogram:
    """Return the histogram of all parts together."""
    if len(parts) == 1:
        return parts[0]
    dense = np.zeros(size(parts[0].dtype), dtype=np.int64)
    for part in parts:
        dense[part.codes] += part.counts
    return compact(parts[0].dtype, dense)


def quantiles(
    histogram: Histogram, shares: Sequence[float], low: float, high: float
) -> list[float]:
    """Return the values below which the given shares of the finite values lie.

    The value of rank ceil(share * n) is meant (numpy's ``inverted_cdf``): exact for types of 8
    and 16 bits, else interpolated inside its bin and kept within the known extremes.
    """
    order = histogram.ascending
    ranks = [_rank(share, order.total) for share in shares]
    found = []
    for rank, at in zip(ranks, order.ends.searchsorted(ranks).tolist(), strict=True):
        count = int(order.counts[at])
        inside = rank - int(order.ends[at]) + count
        value = _inside(histogram.meaning, int(order.codes[at]), inside, count)
        found.append(min(max(value, low), high))
    return found


def _rank(share: float, total: int) -> int:
    return min(max(math.ceil(share * total), 1), total)


def _inside(meaning: Bins, code: int, rank: int, count: int) -> float:
    """Return the value of the given rank (from 1) among ``count`` values of one bin."""
    lower, upper = float(meaning.lower[code]), float(meaning.upper[code])
    if meaning.exact:
        return lower
    if not meaning.floating:
        return upper if lower < 0 else lower
    return lower + (rank - 0.5) / count * (upper - lower)


def absolute_quantile(histogram: Histogram, share: float, high: float) -> float:
    """Return the value below which a share of the absolute finite values lies.

    ``share`` is close to 1: bins are counted from the largest magnitudes down.
    """
    order = histogram.ascending
    meaning = histogram.meaning
    above = order.total - _rank(share, order.total)  # so many are larger
    for code, count in _largest_first(histogram, above + 1):
        if above < count:
            # ranks inside a bin ascend with the value, so with the magnitude if it is positive
            negative = meaning.lower[code] < 0
            rank = above + 1 if negative else count - above
            return min(abs(_inside(meaning, code, rank, count)), high)
        above -= count
    raise AssertionError("the ranks of a histogram add up to its total")


def _largest_first(histogram: Histogram, wanted: int) -> list[tuple[int, int]]:
    """Return codes and counts of the finite bins with the ``wanted`` largest magnitudes at least.

    The largest magnitudes lie at both ends of the bins in ascending order.
    """
    order, meaning = histogram.ascending, histogram.meaning
    left = int(order.ends.searchsorted(wanted)) + 1
    right = int(order.ends.searchsorted(order.total - wanted, side="right"))
    codes, counts = order.codes, order.counts
    if left < right:
        codes = np.concatenate((codes[:left], codes[right:]))
        counts = np.concatenate((counts[:left], counts[right:]))
    down = meaning.magnitude[codes].argsort(kind="stable")[::-1]
    return list(zip(codes[down].tolist(), counts[down].tolist(), strict=True))


def isolated(histogram: Histogram, zeros: int) -> tuple[int, int]:
    """Return the empty exponents below the isolated largest values, and how many those are.

    The widest run of empty binary exponents counts that has at most :data:`ISOLATED` values (and
    no more than one in a thousand, but always one) above it; (0, 0) when there is none.
    """
    meaning = histogram.meaning
    total = histogram.ascending.total - zeros
    if not meaning.floating or total < 2:
        return 0, 0
    allowed = max(1, min(ISOLATED, int(total * ISOLATED_SHARE)))
    population: dict[int, int] = {}
    for code, count in _largest_first(histogram, allowed + 1):
        exponent = int(meaning.exponent[code])
        population[exponent] = population.get(exponent, 0) + count
    lowest = int(meaning.exponent[0])
    if meaning.exact:
        population.pop(lowest, None)  # that of zero
    elif lowest in population:
        population[lowest] -= zeros  # they share their bin with the smallest subnormals
    return _widest_gap([(e, population[e]) for e in sorted(population) if population[e]], allowed)


def _widest_gap(population: list[tuple[int, int]], allowed: int) -> tuple[int, int]:
    """Return the widest gap below at most ``allowed`` values, and their number."""
    best = (0, 0)
    above = 0
    for (lower, _), (exponent, count) in reversed(list(pairwise(population))):
        above += count
        if above > allowed:
            break
        if exponent - lower - 1 > best[0]:
            best = (exponent - lower - 1, above)
    return best


def near_overflow(histogram: Histogram, largest: float) -> int:
    """Return how many values lie within a factor of two of the largest that the type can hold.

    ``largest`` is the largest magnitude that occurs.
    """
    meaning = histogram.meaning
    if not meaning.floating or largest < meaning.largest / 2:
        return 0
    codes = histogram.codes
    nearest = np.minimum(np.abs(meaning.lower[codes]), np.abs(meaning.upper[codes]))
    near = meaning.finite[codes] & (nearest >= meaning.largest / 2)
    return int(histogram.counts[near].sum())


@dataclass(frozen=True, slots=True)
class Sketch:
    """A histogram made coarse enough to be kept for every tensor of many checkpoints.

    It unpacks to ``bins, counts``.

    Attributes
    ----------
    dtype: whose codes they are.
    dropped: how many low bits of the mantissa were cleared.
    bins: codes with these bits cleared, ascending.
    counts: values in each.
    """

    dtype: str
    dropped: int
    bins: NDArray[np.uint16] = field(repr=False)
    counts: NDArray[Any] = field(repr=False)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        yield self.bins
        yield self.counts


def sketch(histogram: Histogram) -> Sketch:
    """Return the finest sketch of at most :data:`SKETCH_BINS` bins (exponents are never lost)."""
    codes = histogram.codes
    dropped = 0
    if codes.size > SKETCH_BINS:
        # neighbours stay apart when they differ in a bit that is kept
        apart = codes[1:] ^ codes[:-1]
        apart.partition(apart.size - SKETCH_BINS)
        dropped = min(int(apart[-SKETCH_BINS]).bit_length(), histogram.meaning.mantissa)
    return _coarse(histogram.dtype, codes, histogram.counts, dropped)


def merge_sketches(parts: Sequence[Sketch]) -> Sketch:
    """Return the sketch of all values together, as coarse as the coarsest part."""
    dropped = max(part.dropped for part in parts)
    codes = np.concatenate([part.bins for part in parts]).astype(np.int64)
    counts = np.concatenate([part.counts for part in parts]).astype(np.int64)
    order = np.argsort(codes, kind="stable")
    return _coarse(parts[0].dtype, codes[order], counts[order], dropped)


def _coarse(dtype: str, codes: Codes, counts: Counts, dropped: int) -> Sketch:
    if not codes.size:
        return Sketch(dtype, dropped, np.empty(0, np.uint16), np.empty(0, np.uint32))
    cut = codes >> dropped
    starts = np.ones(cut.size, dtype=bool)
    np.not_equal(cut[1:], cut[:-1], out=starts[1:])
    first = np.flatnonzero(starts)
    summed = np.add.reduceat(counts, first)
    wide = summed.max() > np.iinfo(np.uint32).max
    return Sketch(
        dtype,
        dropped,
        (cut[first] << dropped).astype(np.uint16),
        summed.astype(np.uint64 if wide else np.uint32),
    )
