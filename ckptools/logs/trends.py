"""The course of a series: where it is no number, where it jumps, where it leaves for good.

All limits are robust: medians and median absolute deviations, segment by segment.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.types.records import UNKNOWN, Log, SeriesName

#: values that a segment must have before its course is judged
LEAST = 20
#: 1 / Φ⁻¹(3/4): the MAD of a normal distribution times this is its standard deviation
_MAD = 1.4826
#: values on each side that a spike is compared with
_AROUND = 5
#: values of series that are in memory at once; of windows whose medians are taken at once
AT_ONCE, _MANY = 1 << 22, 1 << 18
#: medians of windows that tell a divergence; a longer series is shortened
_MOST_WINDOWS = 4000


@dataclass(frozen=True)
class Series:
    """One term of the training within one segment, in the order of the log."""

    term: str
    layer: int | None
    run: int
    segment: int
    index: NDArray[np.integer[Any]]
    values: NDArray[np.float64]

    @property
    def name(self) -> str:
        """The term, with its layer where it has one."""
        return self.term if self.layer is None else f"{self.term} of layer {self.layer}"


def series_of(
    log: Log, *, phase: str = "train", terms: Container[str] | None = None
) -> Iterator[Series]:
    """Yield every series of a phase, in the order in which they first appear.

    Only as many series as :data:`AT_ONCE` values allow are gathered at a time, so the memory does
    not grow with the number of terms.

    Parameters
    ----------
    terms: names of the terms wanted; None for all.
    """
    wanted = log.phases.index(phase) if phase in log.phases else None
    counts = {
        name: count
        for name, count in log.series.items()
        if name[2] == wanted and (terms is None or log.terms[name[3]] in terms)
    }
    names, batch = list(counts), 0
    while batch < len(names):
        chosen: dict[SeriesName, int] = {}
        while batch < len(names) and (
            not chosen or sum(chosen.values()) + counts[names[batch]] <= AT_ONCE
        ):
            chosen[names[batch]] = counts[names[batch]]
            batch += 1
        yield from _gathered(log, chosen)


def _gathered(log: Log, counts: dict[SeriesName, int]) -> Iterator[Series]:
    """Yield the series of the given numbers of values."""
    values = {name: np.empty(count) for name, count in counts.items()}
    narrow = np.int32 if len(log) < 1 << 31 else np.int64
    places: dict[SeriesName, NDArray[Any]] = {
        name: np.empty(count, narrow) for name, count in counts.items()
    }
    filled = dict.fromkeys(counts, 0)
    before = 0
    for part in log.parts:
        for name, index in log.groups(part, counts):
            some = slice(filled[name], filled[name] + len(index))
            values[name][some], places[name][some] = part.value[index], before + index
            filled[name] = some.stop
        before += len(part.value)
    for name in counts:
        run, segment, _, term, layer = name
        known = None if layer == UNKNOWN else layer
        yield Series(log.terms[term], known, run, segment, places.pop(name), values.pop(name))


def values_of(log: Log, term: str) -> NDArray[np.float64]:
    """Return all values of a term of the training that belongs to no layer."""
    if term not in log.terms or "train" not in log.phases:
        return np.empty(0)
    wanted = (log.phases.index("train"), log.terms.index(term), UNKNOWN)
    found = [np.empty(0)]
    names = {name for name in log.series if name[2:] == wanted}
    for part in log.parts:
        found += [part.value[index] for _, index in log.groups(part, names)]
    return np.concatenate(found)


def divergence(values: NDArray[np.float64], factor: float) -> int | None:
    """Return where a positive series leaves for good, or None.

    It has left when the median of its last tenth (five values at least) is ``factor`` times the
    lowest median of any window of that width before it; the onset is the first value after that
    window from which all windows stay above half of the way, on a logarithmic scale.
    """
    if len(values) < LEAST or not np.all(values > 0):
        return None
    size = -(-len(values) // _MOST_WINDOWS)
    width = max(5, len(values) // size // 10)
    logs = np.log(_shortened(values, size))
    if len(logs) < 3 * width:
        return None
    medians = np.median(np.lib.stride_tricks.sliding_window_view(logs, width), axis=1)
    best = int(np.argmin(medians))
    if medians[-1] - medians[best] < np.log(factor):
        return None
    low = np.flatnonzero(medians <= (medians[-1] + medians[best]) / 2)
    return (int(low[-1]) + width // 2 + 1) * size


def _shortened(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the medians of stretches of ``size`` values; what is left at the end is left out."""
    if size == 1:
        return values
    stretches = values[: len(values) // size * size].reshape(-1, size)
    pieces = np.array_split(stretches, len(values) // _MANY + 1)
    return np.concatenate([np.median(some, axis=1) for some in pieces])


def spikes(values: NDArray[np.float64], limit: float) -> list[int]:
    """Return where a positive series jumps above its surroundings and comes back.

    A spike lies ``limit`` robust standard deviations (of the logarithms) above the median of the
    five values before and that of the five after it, and at least at twice both; the ends of a
    series, which lack surroundings, hold none.
    """
    if len(values) < LEAST or not np.all(values > 0):
        return []
    rest = _above(values)
    sample = rest[:: len(rest) // _MANY + 1]
    spread = _MAD * float(np.median(np.abs(sample - np.median(sample))))
    return [int(i) + _AROUND for i in np.flatnonzero(rest > max(limit * spread, np.log(2.0)))]


def _above(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return how far, in logarithms, each inner value lies above its surroundings."""
    found = np.empty(len(values) - 2 * _AROUND, np.float32)
    for start in range(0, len(found), _MANY):
        logs = np.log(values[start : start + _MANY + 2 * _AROUND])
        windows = np.lib.stride_tricks.sliding_window_view(logs, _AROUND)
        medians = np.median(windows, axis=1)
        inner = logs[_AROUND:-_AROUND]
        before, after = medians[: len(inner)], medians[_AROUND + 1 :]
        found[start : start + _MANY] = inner - np.maximum(before, after)
    return found


def plateau(values: NDArray[np.float64], band: float) -> int | None:
    """Return from where on a falling positive series does not move any more, or None.

    The series is cut into twenty stretches.  It stands still when the medians of its last eight
    stretches or more lie within ``band`` of their common median, relatively, while its first
    stretch was at least a tenth above; the beginning of the first of them is returned.  Where the
    noise of a stretch's median is more than a third of the band, the band is three times that,
    but never more than three times as wide as asked for.
    """
    count = 20
    if len(values) < 3 * count or not np.all(values > 0):
        return None
    stretches = np.array_split(np.log(_shortened(values, len(values) // _MANY + 1)), count)
    medians = np.array([np.median(one) for one in stretches])
    spread = _MAD * np.median([np.median(np.abs(one - np.median(one))) for one in stretches])
    noise = 1.2533 * spread / np.sqrt(len(stretches[-1]))  # of the median of a normal sample
    allowed = np.log1p(np.clip(3 * noise, band, 3 * band))
    for first in range(1, count - 7):
        level = np.median(medians[first:])
        if np.all(np.abs(medians[first:] - level) <= allowed):
            fell = medians[0] - level >= np.log(1.1)
            return len(values) * first // count if fell else None
    return None
