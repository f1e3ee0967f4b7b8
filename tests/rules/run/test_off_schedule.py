from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.resumes import edited, evidence
from tests.builders.small_run import State


def wrong_since(state: State) -> None:
    """Group and scheduler agree on a rate that the schedule does not give."""
    state["optimizer"]["param_groups"][1]["lr"] *= 0.4
    state["scheduler"]["_last_lr"][1] *= 0.4


def group_alone(state: State) -> None:
    state["optimizer"]["param_groups"][1]["lr"] *= 0.4


def other_base(state: State) -> None:
    state["scheduler"]["base_lrs"][0] *= 2


def without(state: State) -> None:
    wrong_since(state)
    del state["scheduler"]


FIRES_ON = {"a_rate": partial(evidence, wrong_since), "a_base": partial(evidence, other_base)}
SILENT_ON = {
    "a_healthy_epoch": evidence,
    "its_first_epoch": partial(evidence, epoch=1),
    "no_scheduler": partial(evidence, without),
    "what_RUN102_says": partial(evidence, group_alone),
    "an_unknown_schedule": partial(evidence, edited("scheduler", warm_up=3)),
}


def test_names_the_group_and_the_rate_that_is_due() -> None:
    (finding,) = judge(evidence(wrong_since), select=["RUN106"]).findings
    assert finding.target.endswith("param_groups[1]")
    assert abs(finding.evidence["lr"] / finding.evidence["schedule"] - 0.4) < 1e-6
