"""Content of an epoch further back."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from ckptools import layouts, stats
from ckptools.types.evidence import Evidence
from ckptools.workflows.timeline import timeline
from tests.builders.pairs import FC1, Fault, run, stale_block
from tests.builders.small_run import State, planted


def stale(state: State) -> None:
    state["model"][FC1].copy_(torch.load(run()[1], weights_only=True)["model"][FC1])


def measured(fault: Fault | None = None, *, frozen: bool = False) -> Evidence:
    """Return epoch 4 with its two epochs before and epoch 1, all of them measured."""
    paths = [run()[epoch] for epoch in (3, 3 if frozen else 2, 1)]
    with tempfile.TemporaryDirectory(prefix="ckptools-series-") as folder:
        newest = run()[4]
        if fault is not None:
            newest = planted(newest, Path(folder) / newest.name, fault)
        now, *earlier = (_measured(path) for path in (newest, *paths))
    return replace(now, earlier=tuple(earlier))


def _measured(path: Path) -> Evidence:
    checkpoint = layouts.open(str(path))
    return Evidence(checkpoint, stats.measure(checkpoint))


FIRES_ON = {"a_tensor": partial(measured, stale), "a_block": partial(measured, stale_block)}
SILENT_ON = {"a_healthy_epoch": measured, "an_epoch_twice": partial(measured, frozen=True)}


def test_a_stale_tensor_of_any_older_epoch_names_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    sick = planted(run()[4], tmp_path / "checkpoint_epoch_4.pth", stale)
    paths = [*run()[:4], sick]
    for _ in range(2):  # computed, then from the cache
        (one,) = timeline(*paths, select=["CHG207"]).findings
        assert one.target == FC1
        assert one.evidence["source"] == str(run()[1])
        assert one.evidence["epoch"] == 4
    assert timeline(*run()[:5], select=["CHG207"]).findings == ()
