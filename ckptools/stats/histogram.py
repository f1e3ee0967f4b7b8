"""The histogram of the top 16 bits of every value, and what can be read from it alone.

For types of 8 and 16 bits it holds every value, so everything read from it is exact.  For wider
ones a bin spans 2**-7 (float32) or 2**-4 (float64) of its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
class Histogram:
    """Populated codes in ascending order of the code, and how often each occurs."""

    dtype: str
    codes: Codes
    counts: Counts

    @property
    def meaning(self) -> Bins:
        """What the codes stand for."""
        return bins(self.dtype)

    def count(self, flags: NDArray[np.bool_]) -> int:
        """Return how many values have a code that is flagged."""
        return int(self.counts[flags[self.codes]].sum())


def size(dtype: str) -> int:
    """Return the number of codes of ``dtype``."""
    return int(bins(dtype).lower.size)


def compact(dtype: str, dense: NDArray[np.int64], populated: Codes | None = None) -> Histogram:
    """Return the populated bins of a dense histogram, and clear it.

    ``populated`` are their codes, ascending, where they are known already.
    """
    codes = np.flatnonzero(dense) if populated is None else populated
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
    kept, counts = ascending(histogram)
    lower, upper = histogram.meaning.lower[kept], histogram.meaning.upper[kept]
    values = _at_ranks(histogram.meaning, lower, upper, counts, shares)
    return [min(max(value, low), high) for value in values.tolist()]


def absolute_quantile(histogram: Histogram, share: float, high: float) -> float:
    """Return the value below which a share of the absolute finite values lies."""
    meaning = histogram.meaning
    finite = meaning.finite[histogram.codes]
    codes, counts = histogram.codes[finite], histogram.counts[finite]
    low, up = np.abs(meaning.lower[codes]), np.abs(meaning.upper[codes])
    order = np.argsort(np.minimum(low, up), kind="stable")
    small, large = np.minimum(low, up)[order], np.maximum(low, up)[order]
    # both signs of one magnitude are one bin
    first = firsts(small)
    summed = np.add.reduceat(counts[order], first)
    value = _at_ranks(meaning, small[first], large[first], summed, (share,))
    return min(float(value[0]), high)


def ascending(histogram: Histogram) -> tuple[Codes, Counts]:
    """Return the finite codes in the order of their values, and their counts."""
    codes, counts = histogram.codes, histogram.counts
    meaning = histogram.meaning
    if meaning.order != "unsigned":
        split = int(np.searchsorted(codes, meaning.lower.size // 2))
        back = -1 if meaning.order == "sign-magnitude" else 1
        codes = np.concatenate((codes[split:][::back], codes[:split]))
        counts = np.concatenate((counts[split:][::back], counts[:split]))
    finite = meaning.finite[codes]
    return codes[finite], counts[finite]


def _at_ranks(
    meaning: Bins,
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    counts: Counts,
    shares: Sequence[float],
) -> NDArray[np.float64]:
    """Return the values at the given shares of ascending bins."""
    ends = np.cumsum(counts)
    total = int(ends[-1])
    ranks = np.clip(np.ceil(np.asarray(shares) * total), 1, total)
    at = np.searchsorted(ends, ranks)
    if meaning.exact:
        return np.asarray(lower[at])
    if not meaning.floating:
        return np.asarray(np.where(lower[at] < 0, upper[at], lower[at]))
    inside = (ranks - (ends[at] - counts[at]) - 0.5) / counts[at]
    found: NDArray[np.float64] = lower[at] + inside * (upper[at] - lower[at])
    return found


def isolated(histogram: Histogram, zeros: int) -> tuple[int, int]:
    """Return the empty exponents below the isolated largest values, and how many those are.

    The widest run of empty binary exponents counts that has at most :data:`ISOLATED` values (and
    no more than one in a thousand, but always one) above it; (0, 0) when there is none.
    """
    meaning = histogram.meaning
    kept = meaning.finite[histogram.codes] & ~meaning.zero[histogram.codes]
    if not meaning.floating or not kept.any():
        return 0, 0
    exponents, counts = meaning.exponent[histogram.codes[kept]], histogram.counts[kept]
    base = int(exponents.min())
    population = np.bincount(exponents - base, weights=counts)
    if not meaning.exact:
        lowest = int(meaning.exponent[0]) - base  # the bin that zeros share with subnormals
        population[max(lowest, 0)] -= zeros if lowest == 0 else 0
    return _widest_gap(population)


def _widest_gap(population: NDArray[Any]) -> tuple[int, int]:
    allowed = max(1, min(ISOLATED, int(population.sum() * ISOLATED_SHARE)))
    exponents = np.flatnonzero(population)[::-1][: allowed + 1]
    above = np.cumsum(population[exponents])[:-1]
    gaps = np.where(above <= allowed, exponents[:-1] - exponents[1:] - 1, 0)
    if not gaps.size or not gaps.max():
        return 0, 0
    best = int(np.argmax(gaps))
    return int(gaps[best]), int(above[best])


def near_overflow(histogram: Histogram) -> int:
    """Return how many values lie within a factor of two of the largest that the type can hold."""
    meaning = histogram.meaning
    if not meaning.floating:
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
    limit = histogram.meaning.mantissa
    dropped = 0
    while dropped < limit and _width(histogram.codes, dropped) > SKETCH_BINS:
        dropped += 1
    return _coarse(histogram.dtype, histogram.codes, histogram.counts, dropped)


def merge_sketches(parts: Sequence[Sketch]) -> Sketch:
    """Return the sketch of all values together, as coarse as the coarsest part."""
    dropped = max(part.dropped for part in parts)
    codes = np.concatenate([part.bins for part in parts]).astype(np.int64)
    counts = np.concatenate([part.counts for part in parts]).astype(np.int64)
    order = np.argsort(codes, kind="stable")
    return _coarse(parts[0].dtype, codes[order], counts[order], dropped)


def firsts(ordered: NDArray[Any]) -> NDArray[np.intp]:
    """Return where each run of equal values begins."""
    starts = np.ones(ordered.size, dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    return np.flatnonzero(starts)


def _width(codes: Codes, dropped: int) -> int:
    """Return how many bins are left when low bits of ascending codes are dropped."""
    cut = codes >> dropped
    return 1 + int(np.count_nonzero(cut[1:] != cut[:-1]))


def _coarse(dtype: str, codes: Codes, counts: Counts, dropped: int) -> Sketch:
    if not codes.size:
        return Sketch(dtype, dropped, np.empty(0, np.uint16), np.empty(0, np.uint32))
    cut = codes >> dropped
    first = firsts(cut)
    summed = np.add.reduceat(counts, first)
    wide = summed.max() > np.iinfo(np.uint32).max
    return Sketch(
        dtype,
        dropped,
        (cut[first] << dropped).astype(np.uint16),
        summed.astype(np.uint64 if wide else np.uint32),
    )
