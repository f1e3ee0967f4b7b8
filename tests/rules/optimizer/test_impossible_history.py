from __future__ import annotations

from functools import partial

import torch

from ckptools.rules import judge
from tests.builders.pairs import evidence, exchange_states, run

FIRES_ON = {"exchanged_states": partial(evidence, exchange_states)}
SILENT_ON = {"a_healthy_epoch": evidence, "the_first_epoch": partial(evidence, newer=1, older=0)}


def test_names_the_place() -> None:
    findings = judge(evidence(exchange_states), select=["OPT102"]).findings
    assert findings[0].target == "blocks.0.fc1.weight"
    assert findings[0].confidence == "proof"


def test_another_runs_optimizer_is_no_proof() -> None:
    def other(state: dict) -> None:  # type: ignore[type-arg]
        state["optimizer"] = torch.load(run(1)[5], weights_only=True)["optimizer"]

    findings = judge(evidence(other), select=["OPT102"]).findings
    assert findings
    assert {finding.confidence for finding in findings} == {"hint"}
