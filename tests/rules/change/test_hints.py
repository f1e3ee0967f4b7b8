"""The hints about change: each speaks on its disease, none on health."""

from __future__ import annotations

from dataclasses import replace
from math import hypot
from pathlib import Path

import pytest

from ckptools.rules import judge
from ckptools.types.change import Match
from ckptools.types.evidence import Evidence
from ckptools.workflows.timeline import timeline
from tests.builders.pairs import FC1, evidence, run
from tests.builders.small_run import State, planted, slots


def codes(found: Evidence, code: str) -> list[str]:
    judgement = judge(found, select=[code])
    assert judgement.crashed == ()
    return [finding.target for finding in judgement.findings]


@pytest.mark.parametrize("newer", [2, 4])
@pytest.mark.parametrize("code", ["CHG208", "CHG209"])
def test_health_is_silent(code: str, newer: int) -> None:
    assert codes(evidence(newer=newer, older=newer - 1), code) == []


def test_a_stale_tensor_of_any_older_epoch_names_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def stale(state: State) -> None:
        state["model"][FC1].copy_(torch.load(run()[1], weights_only=True)["model"][FC1])

    sick = planted(run()[4], tmp_path / "checkpoint_epoch_4.pth", stale)
    paths = [*run()[:4], sick]
    for _ in range(2):  # computed, then from the cache
        (one,) = timeline(*paths, select=["CHG207"]).findings
        assert one.target == FC1
        assert one.evidence["source"] == str(run()[1])
        assert one.evidence["epoch"] == 4
    assert timeline(*run()[:5], select=["CHG207"]).findings == ()


def drifting(factor: float) -> Evidence:
    """Return a healthy pair with a stack of six blocks, of which one moved otherwise."""
    healthy = evidence()
    (change,) = healthy.changes
    matches = [
        Match(
            name, name, "model", f"layers.{i}", numel=256, dimensions=2, norm_a=3.0, norm_b=3.0,
            relative_change=0.01 * (1 + 0.1 * i) * (factor if i == 3 else 1), cosine=0.999,
        )
        for i in range(6)
        for name in (f"layers.{i}.fc1.weight", f"layers.{i}.fc2.weight")
    ]  # fmt: skip
    return replace(healthy, changes=(replace(change, matches=tuple(matches)),))


def test_one_block_drifting_alone() -> None:
    assert codes(drifting(1.0), "CHG208") == []
    assert codes(drifting(3.0), "CHG208") == []
    assert codes(drifting(20.0), "CHG208") == ["layers.3"]
    assert codes(drifting(0.01), "CHG208") == ["layers.3"]


def test_a_negated_first_moment() -> None:
    def negated(state: State) -> None:
        slots(state, FC1)["exp_avg"].neg_()

    found = evidence(negated, newer=5, older=4)
    (change,) = found.changes
    quiet = [replace(s, bounds={}) for s in change.states]
    turned = [
        replace(s, cosines={"exp_avg": -0.99, "exp_avg_sq": 0.99}) if s.target == FC1 else s
        for s in quiet
    ]
    assert codes(replace(found, changes=(replace(change, states=tuple(turned)),)), "CHG209") == [
        FC1
    ]
    lost = [
        replace(s, cosines={"exp_avg": 0.1, "exp_avg_sq": 0.2 if s.target == FC1 else 0.95})
        for s in quiet
    ]
    sick = replace(found, changes=(replace(change, states=tuple(lost)),))
    assert codes(sick, "CHG209") == [FC1]


def rows(factor: float) -> tuple[dict[str, object], ...]:
    """Return what moved before the healthy pair, ``factor`` times as little."""
    (change,) = evidence().changes
    sizes: dict[tuple[str, str], list[float]] = {}
    for match in change.matches:
        moved = (match.relative_change or 0.0) * (match.norm_a or 0.0)
        sizes.setdefault((match.set, match.module), []).append(moved)
    return tuple(
        {"set": set_, "name": name, "relative_change": hypot(*moved) / factor, "norm_a": 1.0,
         "steps": 12}
        for (set_, name), moved in sizes.items()
    )  # fmt: skip


def test_an_update_that_jumped() -> None:
    healthy = evidence()
    assert codes(replace(healthy, before=rows(1.5)), "CHG210") == []
    assert codes(replace(healthy, before=rows(20.0)), "CHG210") == ["model"]
    (first, *rest) = rows(1.0)
    small = first | {"relative_change": 0.05 * float(str(first["relative_change"]))}
    assert codes(replace(healthy, before=(small, *rest)), "CHG210") == [first["name"]]
    longer = tuple(row | {"steps": 1} for row in rows(12.0))
    assert codes(replace(healthy, before=longer), "CHG210") == []


def test_a_healthy_run_never_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = timeline(*run()[1:], select=["CHG207", "CHG208", "CHG209", "CHG210"])
    assert found.findings == ()
