from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.pairs import evidence
from tests.builders.small_run import State


def other_rate(state: State) -> None:
    state["optimizer"]["param_groups"][1]["lr"] *= 10


def without_scheduler(state: State) -> None:
    state["optimizer"]["param_groups"][1]["lr"] *= 10
    del state["scheduler"]


FIRES_ON = {"one_group": partial(evidence, other_rate)}
SILENT_ON = {"a_healthy_epoch": evidence, "no_scheduler": partial(evidence, without_scheduler)}


def test_names_the_group() -> None:
    (finding,) = judge(evidence(other_rate), select=["RUN102"]).findings
    assert finding.target.endswith("param_groups[1]")
    assert finding.evidence["lr"] > finding.evidence["last_lr"]
