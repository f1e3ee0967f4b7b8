from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from ckptools import layouts
from ckptools.compare.changes import compare
from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.pairs import FC1, evidence, run
from tests.builders.small_run import State, planted


def stale(epoch: int, name: str = FC1) -> object:
    def fault(state: State) -> None:
        older = torch.load(run()[epoch], weights_only=True)["model"]
        state["model"][name].copy_(older[name])

    return fault


def in_a_series(epoch: int) -> Evidence:
    """Return the newest epoch with a tensor of an older one, held against both earlier ones."""
    nearest, older = evidence(stale(epoch)), evidence(stale(epoch), older=epoch)
    return replace(nearest, changes=(*nearest.changes, *older.changes))


def rounded(state: State) -> None:
    """Store all weights in 16 bits, as training in them does; a gain's updates may be lost."""
    state["model"] = {name: tensor.bfloat16() for name, tensor in state["model"].items()}


@cache
def in_sixteen_bits(name: str) -> Evidence:
    """Return two epochs stored in 16 bits, a tensor of the newer one as it was."""
    folder = Path(tempfile.mkdtemp(prefix="ckptools-bf16-"))
    older = planted(run()[4], folder / "older.pth", rounded)
    newer = planted(run()[5], folder / "newer.pth", rounded)
    before = torch.load(older, weights_only=True)["model"][name]
    planted(newer, newer, lambda state: state["model"][name].copy_(before))
    change = compare(layouts.open(str(older)), layouts.open(str(newer)))
    return Evidence(change.b, earlier=(Evidence(change.a),), changes=(change,))


FIRES_ON = {
    "the_epoch_before": lambda: evidence(stale(4)),
    "an_epoch_before_that": lambda: in_a_series(2),
    "a_matrix_in_sixteen_bits": lambda: in_sixteen_bits(FC1),
}
SILENT_ON = {
    "a_healthy_epoch": evidence,
    "a_gain_in_sixteen_bits": lambda: in_sixteen_bits("blocks.1.norm.weight"),
}


def test_names_the_source() -> None:
    (finding,) = judge(in_a_series(2), select=["CHG206"]).findings
    assert finding.target == FC1
    assert finding.evidence["source"].endswith("checkpoint_epoch_2.pth")
