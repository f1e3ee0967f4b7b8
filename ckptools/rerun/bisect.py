"""The first bad checkpoint of a run, found by evaluation alone in about log2 n loads.

The last checkpoint is held against the first.  Where progress hides the damage from so long a
comparison (an untrained model is worse than a damaged one), the search goes back from the end in
steps that double, then halfway between these, until a checkpoint is better than a later one by the
limit.  Between a good and a bad one it halves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from ckptools.rerun.evaluate import excess

#: a healthy run does not lose a tenth of its loss
LIMIT = 0.1


@dataclass
class Bisection:
    """One search.

    Attributes
    ----------
    losses: of the checkpoints that were loaded, by their place in the series.
    good, bad: the last good and the first bad one; ``bad`` is None where none is worse.
    """

    losses: dict[int, float] = field(default_factory=dict)
    good: int | None = None
    bad: int | None = None


def bisect(count: int, loss: Callable[[int], float], *, limit: float = LIMIT) -> Bisection:
    """Search a series for the first checkpoint that is worse than the last good one by ``limit``.

    Takes for granted what a bisection needs: once bad, the run stays worse than it was before.

    Parameters
    ----------
    count: checkpoints, oldest first.
    loss: loads one and returns its validation loss.
    """
    found = Bisection()

    def of(place: int) -> float:
        if place not in found.losses:
            found.losses[place] = loss(place)
        return found.losses[place]

    if count < 2:
        return found
    bracket = _bracket(count, of, limit)
    if bracket is None:
        found.good = count - 1
        return found
    good, bad = bracket
    while bad - good > 1:
        middle = (good + bad) // 2
        if excess(of(middle), of(good)) > limit:
            bad = middle
        else:
            good = middle
    found.good, found.bad = good, bad
    return found


def _bracket(count: int, of: Callable[[int], float], limit: float) -> tuple[int, int] | None:
    """Return a good place and a bad one after it; None where nothing is worse than before."""
    last = count - 1
    if excess(of(last), of(0)) > limit:
        return 0, last
    seen, step = [last], 1
    while last - step > 0:
        seen.append(last - step)
        step *= 2
    seen.append(0)
    halfway = [(late + early) // 2 for late, early in pairwise(seen) if late - early > 1]
    for place in (*seen[1:-1], *reversed(halfway)):
        later = [one for one in seen if one > place and excess(of(one), of(place)) > limit]
        if later:
            return place, min(later)
    return None
