"""Where a training began again: an entry that lies before where it already was.

Entries are told by their step, else their iteration, else a broken epoch; each is compared with
the last one told in the same way since the last restart.  Steps may be counted anew in every
epoch, so of two entries with epochs the later epoch is the later one.  An entry at the same place
as the one before is no restart: it was logged twice.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ckptools.types.records import UNKNOWN

Whole = NDArray[np.int64]
Real = NDArray[np.float64]
_BY_STEP, _BY_ITER, _BY_EPOCH = 0, 1, 2


class Restarts:
    """Follows the training of one file."""

    def __init__(self) -> None:
        self._reached: dict[int, tuple[float, int]] = {}

    def note(self, epoch: float, iter: int, step: int) -> bool:
        """Take the next entry and return whether it is a restart."""
        if step != UNKNOWN:
            kind, now = _BY_STEP, (epoch, step)
        elif iter != UNKNOWN:
            kind, now = _BY_ITER, (epoch, iter)
        elif not math.isnan(epoch) and not epoch.is_integer():
            kind, now = _BY_EPOCH, (epoch, 0)
        else:
            return False  # a summary of an epoch may be printed more than once
        found = kind in self._reached and _before(now, self._reached[kind])
        if found:
            self._reached.clear()
        self._reached[kind] = now
        return found

    def note_many(self, epoch: Real, iter: Whole, step: Whole, counts: NDArray[np.bool_]) -> Whole:
        """Take many entries, of which those that count, and return where restarts are (1, or 0)."""
        broken = (np.floor(epoch) != epoch) & ~np.isnan(epoch)
        kind = np.select(
            [step != UNKNOWN, iter != UNKNOWN, broken], [_BY_STEP, _BY_ITER, _BY_EPOCH], UNKNOWN
        )
        count = np.select([kind == _BY_STEP, kind == _BY_ITER], [step, iter], 0)
        suspects: list[tuple[int, int]] = []
        last: dict[int, int] = {}
        for one in (_BY_STEP, _BY_ITER, _BY_EPOCH):
            at = np.flatnonzero(counts & (kind == one))
            if not len(at):
                continue
            last[one] = int(at[-1])
            back = _all_before(epoch[at], count[at])
            suspects += zip(at[1:][back].tolist(), at[:-1][back].tolist(), strict=True)
            first = (float(epoch[at[0]]), int(count[at[0]]))
            if one in self._reached and _before(first, self._reached[one]):
                suspects.append((int(at[0]), UNKNOWN))
        found = np.zeros(len(kind), np.int64)
        restart = UNKNOWN - 1  # a restart forgets what came before it
        for place, before in sorted(suspects):
            if before >= restart:
                found[place], restart = 1, place
        if restart >= 0:
            self._reached.clear()
        for one, place in last.items():
            if place >= restart:
                self._reached[one] = (float(epoch[place]), int(count[place]))
        return found


def _before(one: tuple[float, int], other: tuple[float, int]) -> bool:
    """Return whether one place lies before another."""
    if math.isnan(one[0]) or math.isnan(other[0]) or one[0] == other[0]:
        return one[1] < other[1]
    return one[0] < other[0]


def _all_before(epoch: Real, count: Whole) -> NDArray[np.bool_]:
    """Return of each place but the first whether it lies before the one in front of it."""
    apart = ~np.isnan(epoch[1:]) & ~np.isnan(epoch[:-1]) & (epoch[1:] != epoch[:-1])
    found: NDArray[np.bool_] = np.where(apart, epoch[1:] < epoch[:-1], count[1:] < count[:-1])
    return found
