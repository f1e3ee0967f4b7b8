"""The course of a series: where it is no number, where it jumps, where it leaves for good.

All limits are robust: medians and median absolute deviations, segment by segment.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptools.types.records import UNKNOWN, Log, Part

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
    index: NDArray[np.int64]
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
    counts = _counted(log, phase, terms)
    names, batch = list(counts), 0
    while batch < len(names):
        chosen: dict[_Name, int] = {}
        while batch < len(names) and (
            not chosen or sum(chosen.values()) + counts[names[batch]] <= AT_ONCE
        ):
            chosen[names[batch]] = counts[names[batch]]
            batch += 1
        yield from _gathered(log, chosen)


#: run, segment, phase, term and layer of a series, as numbers
_Name = tuple[int, int, int, int, int]
_NAME = ("run", "segment", "phase", "term", "layer")


def _counted(log: Log, phase: str, terms: Container[str] | None) -> dict[_Name, int]:
    """Return how many values each series has."""
    found: dict[_Name, int] = {}
    wanted = log.phases.index(phase) if phase in log.phases else None
    for part in log.parts:
        for name, index in _groups(log, part):
            if name[2] == wanted and (terms is None or log.terms[name[3]] in terms):
                found[name] = found.get(name, 0) + len(index)
    return found


def _groups(log: Log, part: Part) -> Iterator[tuple[_Name, NDArray[np.int64]]]:
    """Yield the series of one part with the indices of their records within it.

    Pieces of a kind have their values at the same places, so only pieces are sorted.
    """
    sizes = log.sizes(part)
    first = np.cumsum(sizes) - sizes
    groups: dict[_Name, list[NDArray[np.int64]]] = {}
    keys = np.stack([part.run, part.segment, part.kind])
    order = np.arange(keys.shape[1])
    if np.any(keys != keys[:, :1]):
        order = np.lexsort(keys[::-1])
    breaks = np.flatnonzero(np.any(np.diff(keys[:, order], axis=1), axis=0)) + 1
    for pieces in sorted(np.split(order, breaks), key=lambda one: int(one[0]) if len(one) else 0):
        run, segment, number = (int(one) for one in keys[:, pieces[0]])
        kind = log.kinds[number]
        for place, (phase, layer, term) in enumerate(kind[:3].T.tolist()):
            name = (run, segment, phase, term, layer)
            groups.setdefault(name, []).append(first[pieces] + place)
    for name, some in groups.items():
        yield name, some[0] if len(some) == 1 else np.sort(np.concatenate(some))


def _gathered(log: Log, counts: dict[_Name, int]) -> Iterator[Series]:
    """Yield the series of the given numbers of values."""
    values = {name: np.empty(count) for name, count in counts.items()}
    places = {name: np.empty(count, np.int64) for name, count in counts.items()}
    filled = dict.fromkeys(counts, 0)
    before = 0
    for part in log.parts:
        for name, index in _groups(log, part):
            if name in counts:
                some = slice(filled[name], filled[name] + len(index))
                values[name][some], places[name][some] = part.value[index], before + index
                filled[name] = some.stop
        before += len(part.value)
    for name in counts:
        run, segment, _, term, layer = name
        known = None if layer == UNKNOWN else layer
        yield Series(log.terms[term], known, run, segment, places.pop(name), values.pop(name))


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
    logs = np.log(values)
    if size > 1:  # a long series by the medians of stretches
        logs = np.median(logs[: len(logs) // size * size].reshape(-1, size), axis=1)
    if len(logs) < 3 * width:
        return None
    medians = np.median(np.lib.stride_tricks.sliding_window_view(logs, width), axis=1)
    best = int(np.argmin(medians))
    if medians[-1] - medians[best] < np.log(factor):
        return None
    low = np.flatnonzero(medians <= (medians[-1] + medians[best]) / 2)
    return (int(low[-1]) + width // 2 + 1) * size


def spikes(values: NDArray[np.float64], limit: float) -> list[int]:
    """Return where a positive series jumps above its surroundings and comes back.

    A spike lies ``limit`` robust standard deviations (of the logarithms) above the median of the
    five values before and that of the five after it, and at least at twice both; the ends of a
    series, which lack surroundings, hold none.
    """
    if len(values) < LEAST or not np.all(values > 0):
        return []
    logs = np.log(values)
    windows = np.lib.stride_tricks.sliding_window_view(logs, _AROUND)
    stretches = np.array_split(windows, len(windows) // _MANY + 1)
    medians = np.concatenate([np.median(some, axis=1) for some in stretches])
    inner = logs[_AROUND:-_AROUND]
    rest = inner - np.maximum(medians[: len(inner)], medians[_AROUND + 1 :])
    spread = _MAD * float(np.median(np.abs(rest - np.median(rest))))
    return [int(i) + _AROUND for i in np.flatnonzero(rest > max(limit * spread, np.log(2.0)))]


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
    stretches = np.array_split(np.log(values), count)
    medians = np.array([np.median(one) for one in stretches])
    spread = _MAD * np.median([np.median(np.abs(one - np.median(one))) for one in stretches])
    noise = 1.2533 * spread / np.sqrt(len(stretches[-1]))  # of the median of a normal sample
    allowed = np.log1p(np.clip(3 * noise, band, 3 * band))
    for first in range(1, count - 7):
        level = np.median(medians[first:])
        if np.all(np.abs(medians[first:] - level) <= allowed):
            fell = medians[0] - level >= np.log(1.1)
            return sum(len(one) for one in stretches[:first]) if fell else None
    return None
