"""An update beside the one before it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import hypot
from pathlib import Path
from typing import Any

import pytest

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from ckptools.workflows.timeline import timeline
from tests.builders.pairs import evidence, run


def rows(factor: float) -> tuple[dict[str, Any], ...]:
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


def jumped(factor: float, longer: int = 1) -> Evidence:
    """Return a healthy pair after a way on which so much less had moved, in fewer steps."""
    before = tuple(row | {"steps": row["steps"] // longer} for row in rows(factor))
    return replace(evidence(), before=before)


def one_jumped() -> Evidence:
    first, *rest = rows(1.0)
    small = first | {"relative_change": 0.05 * first["relative_change"]}
    return replace(evidence(), before=(small, *rest))


FIRES_ON = {"all_modules": partial(jumped, 20.0), "one_module": one_jumped}
SILENT_ON = {
    "as_ever": partial(jumped, 1.5),
    "twelve_times_the_steps": partial(jumped, 12.0, 12),
}


def test_names_the_model_or_the_module() -> None:
    (every,) = judge(jumped(20.0), select=["CHG210"]).findings
    assert every.target == "model"
    (one,) = judge(one_jumped(), select=["CHG210"]).findings
    assert one.target == rows(1.0)[0]["name"]


def test_a_healthy_run_never_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = timeline(*run()[1:], select=["CHG207", "CHG208", "CHG209", "CHG210"])
    assert found.findings == ()
