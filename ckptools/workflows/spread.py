"""Small histograms of magnitudes for a table's column, all on one axis so that rows compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ckptools.stats.families import bins
from ckptools.types.measurements import Statistics

BARS = 12
#: exponents of all float types lie within this offset of zero
_OFFSET = 1100
#: the axis leaves out the smallest values up to this share of all
_CUT = 1 / 100

Group = Sequence[tuple[str, Statistics | None]]


class Spread:
    """Histograms of log2 |w| for several groups of tensors.

    The counts come from the statistics' sketches, whose codes hold the exponent.  Zeros and
    non-finite values have no place on the axis, integers no bars.

    Parameters
    ----------
    groups: the (dtype, statistics) of the tensors of each row.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._counts = [_exponents(group) for group in groups]
        self._low, self._step = _axis(np.sum(self._counts, axis=0))

    @property
    def title(self) -> str:
        """The axis, as a column heading."""
        return f"|w| 2^{self._low}..{self._low + self._step * BARS}"

    def bars(self, index: int) -> list[float | None] | None:
        """Return the heights for group ``index``; None where nothing was counted."""
        counts = self._counts[index]
        exponents = np.flatnonzero(counts)
        if not exponents.size:
            return None
        places = np.clip((exponents - _OFFSET - self._low) // self._step, 0, BARS - 1)
        heights = np.bincount(places, weights=counts[exponents], minlength=BARS)
        return [float(height) or None for height in heights]


def _exponents(group: Group) -> NDArray[np.float64]:
    """Return how many values have each binary exponent, shifted by the offset."""
    total = np.zeros(2 * _OFFSET, np.float64)
    for dtype, statistics in group:
        if statistics is None or statistics.sketch is None or not bins(dtype).floating:
            continue
        meaning = bins(dtype)
        codes, counts = (np.asarray(part, np.int64) for part in statistics.sketch)
        counted = meaning.finite[codes] & (meaning.lower[codes] * meaning.upper[codes] != 0)
        exponents = meaning.exponent[codes[counted]] + _OFFSET
        total += np.bincount(exponents, weights=counts[counted], minlength=total.size)
    return total


def _axis(total: NDArray[np.float64]) -> tuple[int, int]:
    """Return the lowest exponent shown, and how many exponents one bar covers."""
    populated = np.flatnonzero(total)
    if not populated.size:
        return -BARS, 1
    low = int(np.searchsorted(np.cumsum(total), total.sum() * _CUT)) - _OFFSET
    high = int(populated[-1]) - _OFFSET + 1
    step = max(-(-(high - low) // BARS), 1)
    return high - step * BARS, step
