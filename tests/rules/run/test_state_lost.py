from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.pairs import FC1, evidence
from tests.builders.small_run import State, position


def forget(state: State) -> None:
    del state["optimizer"]["state"][position(state, FC1)]


def strip(state: State) -> None:
    del state["optimizer"]


FIRES_ON = {"one_state": partial(evidence, forget), "no_optimizer": partial(evidence, strip)}
SILENT_ON = {"a_healthy_epoch": evidence, "the_first_epoch": partial(evidence, newer=1, older=0)}


def test_a_lost_optimizer_is_one_finding() -> None:
    (finding,) = judge(evidence(strip), select=["RUN101"]).findings
    assert finding.target == "optimizer"


def test_names_the_state() -> None:
    (finding,) = judge(evidence(forget), select=["RUN101"]).findings
    assert len(finding.evidence["states"]) == 1
