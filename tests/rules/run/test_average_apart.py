from __future__ import annotations

from functools import partial

import torch

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.pairs import run
from tests.builders.resumes import evidence, setting
from tests.builders.small_run import State

FC1 = "blocks.1.fc1.weight"


def average(state: State) -> None:
    """Add a fair average: half of two neighbouring epochs."""
    older = torch.load(run()[4], weights_only=True)["model"]
    state["ema"] = {name: (value + older[name]) / 2 for name, value in state["model"].items()}


def equal(state: State) -> None:
    state["ema"] = {name: value.clone() for name, value in state["model"].items()}


def stale(state: State) -> None:
    state["ema"] = torch.load(run()[0], weights_only=True)["model"]


def stranger(state: State) -> None:
    state["ema"] = torch.load(run(1)[5], weights_only=True)["model"]


def partly(state: State) -> None:
    average(state)
    generator = torch.Generator().manual_seed(0)
    state["ema"][FC1] = torch.randn(state["ema"][FC1].shape, generator=generator) * 0.2


def untrained(state: State) -> None:
    equal(state)
    state["epoch"] = state["global_step"] = 0


def before_training() -> Evidence:
    return evidence(untrained, epoch=0)


FIRES_ON = {
    "equal": partial(evidence, equal),
    "a_stranger": partial(evidence, stranger),
    "one_stranger": partial(evidence, partly),
}
SILENT_ON = {
    "no_average": evidence,
    "a_fair_average": partial(evidence, average),
    "before_training": before_training,
    "nothing_shared": partial(evidence, setting("ema", {"other.weight": torch.ones(3, 3)})),
}


def test_names_the_one_tensor() -> None:
    (finding,) = judge(evidence(partly), select=["RUN111"]).findings
    assert finding.target == f"ema:{FC1}"


def test_a_stale_average_speaks_of_its_initial_values() -> None:
    findings = judge(evidence(stale), select=["RUN111"]).findings
    assert all("average" in finding.message for finding in findings)
