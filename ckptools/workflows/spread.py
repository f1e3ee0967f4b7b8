"""Small histograms of magnitudes for a table's column, all on one axis so that rows compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ckptools.types.measurements import Statistics

BARS = 12
#: exponents of all float types lie within this offset of zero
_OFFSET = 1100
#: bits of the exponent and of the mantissa within the top 16 bits of a value
_LAYOUTS = {"float64": (11, 4), "float32": (8, 7), "bfloat16": (8, 7), "float16": (5, 10)}
#: the axis leaves out the smallest values up to this share of all
_CUT = 1 / 500

Group = Sequence[tuple[str, Statistics | None]]


class Spread:
    """Histograms of log2 |w| for several groups of tensors.

    The counts come from the statistics' sketches, whose bins hold the exponent.  Zeros,
    subnormal and non-finite values have no place on the axis.

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
        return f"|w| 2^{self._low}..2^{self._low + self._step * BARS}"

    def bars(self, index: int) -> list[float | None] | None:
        """Return the heights for group ``index``; None where nothing was counted."""
        counts = self._counts[index]
        exponents = np.flatnonzero(counts)
        if not exponents.size:
            return None
        places = np.clip((exponents - _OFFSET - self._low) // self._step, 0, BARS - 1)
        heights = np.bincount(places, weights=counts[exponents], minlength=BARS)
        return [float(height) or None for height in heights]


def _exponents(group: Group) -> np.ndarray[Any, Any]:
    """Return how many values have each binary exponent, shifted by the offset."""
    total = np.zeros(2 * _OFFSET, np.float64)
    for dtype, statistics in group:
        layout = _LAYOUTS.get(dtype)
        if statistics is None or statistics.sketch is None or layout is None:
            continue
        bits, mantissa = layout
        bins, counts = (np.asarray(part, np.int64) for part in statistics.sketch)
        exponents = (bins >> mantissa) & ((1 << bits) - 1)
        normal = (exponents > 0) & (exponents < (1 << bits) - 1)
        shifted = exponents[normal] - ((1 << (bits - 1)) - 1) + _OFFSET
        total += np.bincount(shifted, weights=counts[normal], minlength=total.size)
    return total


def _axis(total: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Return the lowest exponent shown, and how many exponents one bar covers."""
    populated = np.flatnonzero(total)
    if not populated.size:
        return -BARS, 1
    low = int(np.searchsorted(np.cumsum(total), total.sum() * _CUT)) - _OFFSET
    high = int(populated[-1]) - _OFFSET + 1
    step = max(-(-(high - low) // BARS), 1)
    return high - step * BARS, step
