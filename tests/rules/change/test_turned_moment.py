"""Moments that turned while those of the others kept their direction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.pairs import FC1, evidence


def turned(first: float, second: float, usual: float = 0.95, target: str = FC1) -> Evidence:
    """Return a healthy pair, the moments of one state with other cosines than the rest."""
    healthy = evidence()
    (change,) = healthy.changes
    states = [
        replace(
            state,
            bounds={},  # where a history is proved impossible this rule has nothing to add
            cosines={"exp_avg": first, "exp_avg_sq": second}
            if state.target == target
            else {"exp_avg": 0.1, "exp_avg_sq": usual},
        )
        for state in change.states
    ]
    return replace(healthy, changes=(replace(change, states=tuple(states)),))


FIRES_ON = {
    "a_negated_first_moment": partial(turned, -0.99, 0.99),
    "a_second_moment_of_another": partial(turned, 0.1, 0.2),
}
SILENT_ON = {
    "a_healthy_epoch": evidence,
    "an_early_epoch": partial(evidence, newer=2, older=1),
    "all_far_apart": partial(turned, 0.1, 0.2, 0.4),
    "a_first_moment_that_only_lost_its_way": partial(turned, -0.3, 0.95),
}


def test_names_the_state() -> None:
    (one,) = judge(turned(0.1, 0.2), select=["CHG209"]).findings
    assert one.target == FC1
