"""Tasks unlike the bundled one, in both forms that a user's task may have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.strangers.__main__ import ask, confusion, table
from benchmarks.strangers.faults import SCENARIOS
from benchmarks.strangers.runs import STRANGERS, Run, trained
from ckptools.lanes.train import one_thread


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    folder = tmp_path_factory.mktemp("strangers")
    with one_thread():
        yield {
            one.name: trained(one, folder) for one in STRANGERS if one.name in ("table", "critic")
        }


@pytest.mark.parametrize(
    ("name", "scenario", "form", "cause"),
    [
        ("table", "healthy, everything suspected", "pair", "none"),
        ("table", "module zeroed", "class", "weights"),
        ("table", "data bug", "pair", "data-or-code"),
        ("critic", "means x 100", "class", "optimizer"),  # the second optimizer of its file
        ("critic", "learning rates x 20", "pair", "learning-rate"),
    ],
)
def test_causes(
    runs: dict[str, Run], tmp_path: Path, name: str, scenario: str, form: str, cause: str
) -> None:
    chosen = next(one for one in SCENARIOS if one.name == scenario)
    row = ask(runs[name], chosen, form, tmp_path, seed=0)
    assert row.found.verdict.cause == cause
    assert (row.right, row.wrong, row.false_support) == (True, False, False)
    assert row.placed in (None, True)
    assert name in table([row])
    assert cause in confusion([row])
