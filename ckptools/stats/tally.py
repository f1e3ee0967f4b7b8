"""One tensor through the pass: chunk by chunk into tallies, tallies of runs into one, and out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.stats import digest, histogram, moments, rows
from ckptools.stats.families import Family, modulus
from ckptools.stats.histogram import Histogram
from ckptools.stats.kernel import NAN, NEGATIVE_INF, POSITIVE_INF, ZEROS, Engine, Tallies
from ckptools.stats.moments import Moments
from ckptools.stats.rows import Matrix, RowScan
from ckptools.types.measurements import Statistics
from ckptools.types.tensor import TensorRef

#: quantiles that every tensor gets
SHARES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
_EXTREME_SHARE = 0.999


@dataclass(slots=True)
class Run:
    """What the pass over a run of elements gave; runs of one tensor are joined in order.

    Attributes
    ----------
    histogram: populated bins.
    counts: zeros, NaN, +inf and -inf.
    low, high: smallest and largest finite value, None without one.
    moments: of the finite values.
    leaves: hashes for the digest.
    rows: notes on rows and columns, where there is a matrix view.
    """

    histogram: Histogram
    counts: tuple[int, int, int, int]
    low: float | None
    high: float | None
    moments: Moments
    leaves: list[NDArray[np.uint64]]
    rows: RowScan | None

    @property
    def largest(self) -> float:
        """The largest magnitude, 0 without a finite value."""
        return max(abs(self.low or 0), abs(self.high or 0))


@dataclass(slots=True)
class Tally:
    """The pass over a run of one tensor.

    Parameters
    ----------
    family: how its dtype is measured.
    engine: who does the work.
    dense: an empty histogram of 65,536 bins to count in, given back empty by :meth:`run`.
    rows: what to note of rows and columns, if anything.
    """

    family: Family
    engine: Engine
    dense: NDArray[np.int64]
    rows: RowScan | None = None
    _leaves: list[NDArray[np.uint64]] = field(default_factory=list)
    _tallies: Tallies = field(init=False)
    _low: int | None = None
    _high: int | None = None

    def __post_init__(self) -> None:
        codes = 256 if self.family.itemsize == 1 else self.dense.size
        self._tallies = Tallies(self.dense[:codes])

    def add(self, values: NDArray[Any]) -> None:
        """Take in the next elements; every call but the last must bring whole digest leaves."""
        bits = values.view(self.family.bits)
        self._hash(values)
        if self.rows is not None:
            self.rows.add(self.engine, bits, self.family.magnitude)
        if self.family.kind == "codes":
            self.engine.count_codes(bits, self._tallies.histogram)
        elif self.family.kind == "integer":
            self._add_integers(values)
        elif self.family.kind == "complex":
            self._add_real(modulus(values))
        else:
            self._add_real(values)

    def run(self) -> Run:
        """Return what was found; the dense histogram is empty again."""
        found = histogram.compact(self.family.dtype, self._tallies.histogram)
        if self.family.kind == "codes":
            return _from_codes(found, self._leaves, self.rows)
        low, high = self._extremes()
        zeros, nan, positive, negative = self._tallies.counts.tolist()
        return Run(
            found,
            (zeros, nan, positive, negative),
            low,
            high,
            self._tallies.finite_moments(),
            self._leaves,
            self.rows,
        )

    def _hash(self, values: NDArray[Any]) -> None:
        raw = values.view(np.uint8)
        if raw.size % 8:
            raw = np.concatenate((raw, np.zeros(-raw.size % 8, np.uint8)))
        leaves = np.empty((digest.leaf_count(raw.size), 2), dtype=np.uint64)
        words = raw.view(np.uint64)
        self.engine.hash_leaves(words if sys.byteorder == "little" else words.byteswap(), leaves)
        self._leaves.append(leaves)

    def _add_real(self, values: NDArray[Any]) -> None:
        tallies = self._tallies
        self.engine.scan_real(
            values, tallies.histogram, tallies.counts, tallies.extremes, tallies.moments
        )

    def _add_integers(self, values: NDArray[Any]) -> None:
        tallies = self._tallies
        tallies.counts[ZEROS] += np.count_nonzero(values == 0)
        low, high = int(values.min()), int(values.max())
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)
        codes = (values.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        self.engine.count_codes(codes, tallies.histogram)
        moments.accumulate(tallies.moments, moments.of_values(values))

    def _extremes(self) -> tuple[float | None, float | None]:
        """Return the smallest and largest finite value, from the integers they are kept as."""
        if self.family.kind == "integer":
            return self._low, self._high
        low, high = self._tallies.extremes.tolist()
        if low > high:
            return None, None
        number = np.float32 if self.family.dtype == "float32" else np.float64
        signed = np.dtype(f"i{np.dtype(number).itemsize}")
        ordered = np.array([low, high]).astype(signed)
        bits = ordered ^ ((ordered >> (8 * signed.itemsize - 1)) & np.iinfo(signed).max)
        values = bits.view(number).tolist()
        return values[0] + 0.0, values[1] + 0.0  # minus zero is zero


def _from_codes(found: Histogram, leaves: list[NDArray[np.uint64]], scan: RowScan | None) -> Run:
    """Return everything about a type whose histogram holds every value."""
    meaning = found.meaning
    finite = meaning.finite[found.codes]
    values, counts = meaning.lower[found.codes[finite]], found.counts[finite]
    whole = not meaning.floating
    low = high = None
    if values.size:
        low, high = float(values.min()) + 0.0, float(values.max()) + 0.0
        low, high = (int(low), int(high)) if whole else (low, high)
    flags = (meaning.zero, meaning.nan, meaning.positive_inf, meaning.negative_inf)
    zeros, nan, positive, negative = (found.count(flag) for flag in flags)
    return Run(
        found,
        (zeros, nan, positive, negative),
        low,
        high,
        moments.of_counts(values, counts),
        leaves,
        scan,
    )


def join(runs: Sequence[Run]) -> Run:
    """Return the runs of one tensor, in order, as one (rows are concluded separately)."""
    if len(runs) == 1:
        return runs[0]
    whole = histogram.merge([run.histogram for run in runs])
    leaves = [part for run in runs for part in run.leaves]
    if whole.meaning.exact:
        return _from_codes(whole, leaves, None)
    joined = Moments()
    for run in runs:
        joined = moments.merge(joined, run.moments)
    zeros, nan, positive, negative = (
        sum(column) for column in zip(*(r.counts for r in runs), strict=True)
    )
    lows = [run.low for run in runs if run.low is not None]
    highs = [run.high for run in runs if run.high is not None]
    return Run(
        whole,
        (zeros, nan, positive, negative),
        min(lows, default=None),
        max(highs, default=None),
        joined,
        leaves,
        None,
    )


def statistics(
    run: Run,
    ref: TensorRef,
    view: Matrix | None = None,
    notes: rows.RowNotes | None = None,
    *,
    complete: bool = True,
    initializers: tuple[str, ...] | None = None,
) -> Statistics:
    """Return the statistics of a tensor from its joined run.

    Parameters
    ----------
    ref: the tensor, whose dtype and shape go into the digest.
    view, notes: its rows and columns and what was found about them.
    complete: whether all of it was read; no digest is given of an incomplete one.
    initializers: that it is compatible with.
    """
    total = int(run.histogram.counts.sum())
    finite = total - run.counts[NAN] - run.counts[POSITIVE_INF] - run.counts[NEGATIVE_INF]
    gap, apart = histogram.isolated(run.histogram, run.counts[ZEROS])
    return Statistics(
        numel=total,
        finite=finite,
        nan=run.counts[NAN],
        positive_inf=run.counts[POSITIVE_INF],
        negative_inf=run.counts[NEGATIVE_INF],
        zeros=run.counts[ZEROS],
        subnormal=_subnormal(run),
        **_spread(run),
        exponent_gap=gap,
        isolated=apart,
        near_overflow=histogram.near_overflow(run.histogram, run.largest),
        rows=view.rows if view else None,
        columns=view.columns if view else None,
        dead_rows=notes.dead_rows if notes else None,
        dead_columns=notes.dead_columns if notes else None,
        duplicate_rows=notes.repeated if notes else None,
        digest=digest.combine(ref.dtype, ref.shape, run.leaves) if complete else None,
        sketch=histogram.sketch(run.histogram),
        complete=complete,
        initializers=initializers,
    )


def _spread(run: Run) -> dict[str, Any]:
    """Return extremes, moments and quantiles; nothing where no value is finite."""
    if run.low is None or run.high is None:
        return {}
    same = run.low == run.high
    found = moments.constant(run.moments.count, run.low) if same else run.moments
    values = histogram.quantiles(run.histogram, tuple(SHARES.values()), run.low, run.high)
    return {
        "min": run.low,
        "max": run.high,
        "abs_max": run.largest,
        "mean": found.average,
        "std": found.std,
        "rms": found.rms,
        "l2_norm": found.l2_norm,
        "skewness": found.skewness,
        "kurtosis": found.kurtosis,
        "quantiles": dict(zip(SHARES, values, strict=True)),
        "abs_p999": histogram.absolute_quantile(run.histogram, _EXTREME_SHARE, run.largest),
    }


def _subnormal(run: Run) -> int:
    """Return the number of subnormal values: for wide types, of the lowest exponent but zeros."""
    meaning = run.histogram.meaning
    if meaning.exact:
        return run.histogram.count(meaning.subnormal)
    if not meaning.floating:
        return 0
    magnitude = run.histogram.codes & 0x7FFF
    lowest = int(run.histogram.counts[magnitude < (1 << meaning.mantissa)].sum())
    return lowest - run.counts[ZEROS]
