from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from ckptools import layouts
from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from ckptools.workflows.timeline import timeline
from tests.builders.pairs import FC1, Fault, evidence, run
from tests.builders.small_run import State, planted


def third(
    fault: Fault | None = None, *, oldest: int = 3, newer: int = 5, older: int = 4
) -> Evidence:
    """Return a pair of epochs with the one before it at hand."""
    pair = evidence(fault, newer=newer, older=older)
    return replace(pair, earlier=(*pair.earlier, Evidence(layouts.open(str(run()[oldest])))))


def taken_back(state: State, *names: str) -> None:
    """Bring weights of epoch 3 back, a hundredth of what they moved left over."""
    known = torch.load(run()[3], weights_only=True)["model"]
    for name in names or known:
        state["model"][name].lerp_(known[name], 0.99)


FIRES_ON = {
    "one_matrix": partial(third, lambda state: taken_back(state, FC1)),
    "all_of_it": partial(third, taken_back),
}
SILENT_ON = {
    "healthy_epochs": third,
    "the_first_epochs": partial(third, oldest=0, older=1, newer=2),
    "the_same_file_twice": partial(third, oldest=4),
    "a_later_file": partial(third, oldest=5),
}


def test_names_the_matrix_or_the_model() -> None:
    def one(state: State) -> None:
        taken_back(state, FC1)

    (finding,) = judge(third(one), select=["CHG211"]).findings
    assert finding.target == FC1
    assert finding.evidence["cosine"] < -0.9
    (every,) = judge(third(taken_back), select=["CHG211"]).findings
    assert every.target == "model"


def test_a_series_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = list(run()[1:])
    assert timeline(*files, select=["CHG211", "CHG212"]).findings == ()
    files[-1] = planted(files[-1], tmp_path / files[-1].name, taken_back)
    (finding,) = timeline(*files, select=["CHG211"]).findings
    assert finding.target == "model"


def test_without_a_third_file_it_is_skipped_with_the_reason() -> None:
    (skipped,) = judge(evidence(), select=["CHG211"]).skipped
    assert "before the earlier one" in skipped.reason
