"""What ReduceLROnPlateau leaves in a file, and what it cannot have left there.

Its rates follow a metric that no file holds.  Still, every rate is one of an earlier time times a
whole power of the factor (or the least rate), each reduction takes more calls than the patience,
its counters stay within their settings, and the best metric never gets worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ckptools.compare.schedules import number
from ckptools.types.wording import say

State = Mapping[str, Any]
Told = tuple[str, dict[str, Any]]

_KEYS = frozenset({"factor", "patience", "cooldown", "num_bad_epochs", "cooldown_counter", "best"})


def is_plateau(scheduler: State) -> bool:
    """Return whether a state is one of ReduceLROnPlateau, of any version of torch."""
    return scheduler.keys() >= _KEYS


def contradictions(scheduler: State) -> Iterator[Told]:
    """Iterate over what the state of one file contradicts by itself, each with its numbers."""
    patience, cooldown = (number(scheduler[key]) for key in ("patience", "cooldown"))
    bad, waiting = (number(scheduler[key]) for key in ("num_bad_epochs", "cooldown_counter"))
    steps, best = number(scheduler.get("last_epoch")), scheduler["best"]
    if bad is not None and patience is not None and not 0 <= bad <= patience:
        yield (
            say(
                "{bad:.0f} bad epochs are counted, while the patience is {patience:.0f}",
                bad=bad,
                patience=patience,
            ),
            {"num_bad_epochs": bad, "patience": patience},
        )
    elif bad is not None and steps is not None and bad > steps:
        yield (
            say("{bad:.0f} bad epochs are counted in {steps:.0f} calls", bad=bad, steps=steps),
            {"num_bad_epochs": bad, "last_epoch": steps},
        )
    if waiting is not None and cooldown is not None and not 0 <= waiting <= cooldown:
        yield (
            say(
                "the cooldown counter is at {waiting:.0f}, beyond its {cooldown:.0f}",
                waiting=waiting,
                cooldown=cooldown,
            ),
            {"cooldown_counter": waiting, "cooldown": cooldown},
        )
    elif waiting and bad:
        yield (
            say("{bad:.0f} bad epochs are counted during a cooldown", bad=bad),
            {"num_bad_epochs": bad, "cooldown_counter": waiting},
        )
    if isinstance(best, float) and math.isnan(best):
        yield say("the best metric is NaN, which never counts as better"), {"best": "nan"}


def reductions(scheduler: State, before: float, after: float, least: float | None) -> int | None:
    """Return how often the factor takes one rate to another, None where no number of times does.

    The least rate that ends a series of reductions is reached by as many as it takes.

    Parameters
    ----------
    least: the group's least rate (``min_lrs``).
    """
    factor = number(scheduler["factor"])
    if factor is None or not 0 < factor < 1 or before <= 0 or after <= 0:
        return None
    if math.isclose(after, before, rel_tol=1e-6):
        return 0
    times = math.log(after / before) / math.log(factor)
    if least and math.isclose(after, least, rel_tol=1e-6) and times > 0:
        return math.ceil(times - 1e-6)
    whole = round(times)
    close = whole > 0 and math.isclose(after, before * factor**whole, rel_tol=1e-6)
    return whole if close else None


def most_reductions(scheduler: State, calls: float, counted: float = 0.0) -> int:
    """Return how often ``calls`` can have reduced the rate, ``counted`` bad epochs before them.

    Each reduction takes one bad epoch more than the patience, and all but the first wait for the
    cooldown.
    """
    patience, cooldown = (number(scheduler[key]) or 0.0 for key in ("patience", "cooldown"))
    bad = max(patience, 0.0) + 1
    return max(0, math.floor((calls + counted + max(cooldown, 0.0)) / (bad + max(cooldown, 0.0))))


def least_rate(scheduler: State, index: int) -> float | None:
    """Return the least rate of a group."""
    rates = scheduler.get("min_lrs")
    return number(rates[index]) if isinstance(rates, (list, tuple)) and index < len(rates) else None


def got_worse(older: State, newer: State) -> bool:
    """Return whether the best metric of the newer file is worse than that of the older."""
    best, now, mode = older["best"], newer["best"], newer.get("mode")
    if not all(isinstance(value, (int, float)) for value in (best, now)):
        return False
    return bool(now > best if mode == "min" else now < best if mode == "max" else False)
