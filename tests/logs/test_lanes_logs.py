"""The logs of a healthy run of the bundled example: its true weights, and nothing wrong."""

from __future__ import annotations

from pathlib import Path

from ckptools.lanes.losses import COMPONENTS
from ckptools.workflows.log import log


def test_the_record_gives_the_weights_of_the_run(lanes_run: Path) -> None:
    found = log(lanes_run / "train.log")
    assert [one.code for one in found.findings] == ["LOG101"]
    weights = found.audit.components
    assert weights is not None
    assert weights.unique
    assert weights.weights == dict(COMPONENTS)
    assert found.audit.layers == (0.5,) * 6


def test_the_json_log_is_read_and_nothing_is_wrong(lanes_run: Path) -> None:
    found = log(lanes_run / "train.jsonl")
    assert found.findings == ()
    assert {"train", "val"} <= set(found.log.phases)
