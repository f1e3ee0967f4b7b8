"""Counting for the zoo: intervals, what is new, what points at the damage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Any

from scipy.stats import beta

#: A rule may say likely when the upper bound of its false alarms is below this.
LIKELY = 0.01

#: One finding: code, severity, confidence, target.
Row = Sequence[str]


def upper(events: int, cases: int, level: float = 0.95) -> float:
    """Return the one-sided upper Clopper-Pearson bound of a rate; 1 without cases."""
    if cases == 0 or events >= cases:
        return 1.0
    return float(beta.ppf(level, events + 1, cases - events))


def wilson(events: int, cases: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the two-sided 95 % Wilson interval of a rate."""
    if cases == 0:
        return 0.0, 1.0
    share, weight = events / cases, z * z / cases
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * sqrt(share * (1 - share) / cases + weight / (4 * cases))
    return max(0.0, centre - half), min(1.0, centre + half)


def may_say_likely(alarms: int, cases: int) -> bool:
    """Return whether so many false alarms in so many clean cases allow the word likely."""
    return upper(alarms, cases) < LIKELY


def alarms(findings: Iterable[Row]) -> list[Row]:
    """Return the findings that raise an alarm: warnings and errors; a note states a fact."""
    return [one for one in findings if one[1] != "note"]


def fresh(findings: Iterable[Row], before: Iterable[Row]) -> list[Row]:
    """Return the findings that the healthy file, judged in the same way, does not have."""
    known = {(one[0], one[3]) for one in before}
    return [one for one in findings if (one[0], one[3]) not in known]


def points_at(target: str, places: Sequence[str]) -> bool:
    """Return whether a finding's target is, holds or lies in one of the damaged places.

    Without places everything is ill, and any target is right.
    """
    return not places or any(_overlap(target, place) for place in places)


def _overlap(target: str, place: str) -> bool:
    (set_a, _, one), (set_b, _, other) = target.rpartition(":"), place.rpartition(":")
    if set_a and set_b and set_a != set_b:
        return False
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def outcome(
    findings: Sequence[Row], before: Sequence[Row], places: Sequence[str]
) -> dict[str, Any]:
    """Return what a judgement of a damaged file is worth.

    ``found``: there is a fresh alarm; ``first``: the first of them points at the damage;
    ``named``: some does; ``sure``: the first one that does says proof or likely.
    """
    new = alarms(fresh(findings, before))
    right = [one for one in new if points_at(one[3], places)]
    return {
        "found": bool(new),
        "first": bool(new) and points_at(new[0][3], places),
        "named": bool(right),
        "sure": any(one[2] != "hint" for one in right),
        "wrong": len(new) - len(right),
        "by": sorted({one[0] for one in right}),
    }
