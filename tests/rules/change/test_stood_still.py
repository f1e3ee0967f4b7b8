from __future__ import annotations

from dataclasses import replace

import torch

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.pairs import FC1, evidence, run
from tests.builders.small_run import State


def stale(epoch: int, name: str = FC1) -> object:
    def fault(state: State) -> None:
        older = torch.load(run()[epoch], weights_only=True)["model"]
        state["model"][name].copy_(older[name])

    return fault


def in_a_series(epoch: int) -> Evidence:
    """Return the newest epoch with a tensor of an older one, held against both earlier ones."""
    nearest, older = evidence(stale(epoch)), evidence(stale(epoch), older=epoch)
    return replace(nearest, changes=(*nearest.changes, *older.changes))


FIRES_ON = {
    "the_epoch_before": lambda: evidence(stale(4)),
    "an_epoch_before_that": lambda: in_a_series(2),
}
SILENT_ON = {"a_healthy_epoch": evidence}


def test_names_the_source() -> None:
    (finding,) = judge(in_a_series(2), select=["CHG206"]).findings
    assert finding.target == FC1
    assert finding.evidence["source"].endswith("checkpoint_epoch_2.pth")
