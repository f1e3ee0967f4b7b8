"""The course of a series: where it is no number, where it jumps, where it leaves for good.

All limits are robust: medians and median absolute deviations, segment by segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptools.types.records import UNKNOWN, Log

#: values that a segment must have before its course is judged
LEAST = 20
#: 1 / Φ⁻¹(3/4): the MAD of a normal distribution times this is its standard deviation
_MAD = 1.4826
#: values on each side that a spike is compared with
_AROUND = 5


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


def series_of(log: Log, *, phase: str = "train") -> Iterator[Series]:
    """Yield every series of a phase, in the order in which they first appear."""
    if phase not in log.phases:
        return
    chosen = np.flatnonzero(log.phase == log.phases.index(phase))
    kinds = np.stack([c[chosen] for c in (log.run, log.segment, log.term, log.layer)])
    distinct, first, inverse = np.unique(kinds, axis=1, return_index=True, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(inverse.ravel()))[:-1])
    for number in np.argsort(first):
        run, segment, term, layer = (int(one) for one in distinct[:, number])
        index = chosen[groups[number]]
        known = None if layer == UNKNOWN else layer
        yield Series(log.terms[term], known, run, segment, index, log.value[index])


def divergence(values: NDArray[np.float64], factor: float) -> int | None:
    """Return where a positive series leaves for good, or None.

    It has left when the median of its last tenth (five values at least) is ``factor`` times the
    lowest median of any window of that width before it; the onset is the first value after that
    window from which all windows stay above half of the way, on a logarithmic scale.
    """
    width = max(5, len(values) // 10)
    if len(values) < max(LEAST, 3 * width) or not np.all(values > 0):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(np.log(values), width)
    medians = np.median(windows, axis=1)
    best = int(np.argmin(medians))
    if medians[-1] - medians[best] < np.log(factor):
        return None
    low = np.flatnonzero(medians <= (medians[-1] + medians[best]) / 2)
    return int(low[-1]) + width // 2 + 1


def spikes(values: NDArray[np.float64], limit: float) -> list[int]:
    """Return where a positive series jumps above its surroundings and comes back.

    A spike lies ``limit`` robust standard deviations (of the logarithms) above the median of the
    five values before and that of the five after it, and at least at twice both; the ends of a
    series, which lack surroundings, hold none.
    """
    if len(values) < LEAST or not np.all(values > 0):
        return []
    logs = np.log(values)
    medians = np.median(np.lib.stride_tricks.sliding_window_view(logs, _AROUND), axis=1)
    inner = logs[_AROUND:-_AROUND]
    rest = inner - np.maximum(medians[: len(inner)], medians[_AROUND + 1 :])
    spread = _MAD * float(np.median(np.abs(rest - np.median(rest))))
    return [int(i) + _AROUND for i in np.flatnonzero(rest > max(limit * spread, np.log(2.0)))]
