"""Single questions put to a case: files of a small run, one of them damaged by hand."""

from __future__ import annotations

import math
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptools.rerun
from ckptools import layouts
from ckptools.errors import NotComparable, SettingsError
from ckptools.rerun import gap, gradients, restoring
from ckptools.rerun.case import Case
from ckptools.rerun.task import load_task
from ckptools.rerun.trainings import Place
from ckptools.rerun.trials import Experiment
from tests.builders.rerun_tasks import regression

Weights = dict[str, torch.Tensor]


@pytest.fixture
def case(tmp_path: Path) -> Callable[..., Case]:
    """What makes a case of the run whose later checkpoint was changed."""
    spec, earlier, later = regression(tmp_path)

    def made(change: Callable[[Weights], None] = lambda _: None, **options: Any) -> Case:
        saved = torch.load(later, weights_only=True)
        change(saved["model"])
        torch.save(saved, later)
        place = Place(Experiment(spec, str(later), str(earlier)))
        found = Case(load_task(spec), layouts.open(later), place, layouts.open(earlier), **options)
        found.good_values = found.measuring.values(found.good)
        return found

    return made


def scaled(name: str, factor: float) -> Callable[[Weights], None]:
    return lambda weights: weights[name].mul_(factor)


def test_a_suspect_is_cleared_by_what_its_earlier_weights_do(case: Callable[..., Case]) -> None:
    found = case(scaled("heads.1.weight", 40.0), suspects=("heads.1", "heads.0"))
    gap.weighed(found)
    assert found.gap is not None
    rung, verdict = restoring.restored(found)
    assert verdict is not None
    assert verdict.module == "heads.1"
    assert rung.evidence["suspects"]["heads.1"] == pytest.approx(1.0, abs=0.05)
    assert abs(rung.evidence["suspects"]["heads.0"]) < 0.05
    assert found.cleared == ["heads.0"]


def test_without_a_gap_a_suspect_is_measured_by_the_loss(case: Callable[..., Case]) -> None:
    found = case(suspects=("heads.1",))
    gap.weighed(found)
    assert found.gap is None
    rung, verdict = restoring.restored(found)
    assert verdict is None
    mixed = {n: (found.good if n.startswith("heads.1.") else found.bad)[n] for n in found.bad}
    before, after = found.bad_values["loss"], found.measuring.loss(mixed)
    assert rung.evidence["suspects"]["heads.1"] == pytest.approx((before - after) / before)
    assert found.cleared == ["heads.1"]


@pytest.mark.parametrize(
    ("factor", "unexplained", "said"),
    [(300.0, True, "times as large"), (300.0, False, None), (1e38, False, "would break on it")],
)
def test_a_wild_gradient_names_a_module_where_something_is_to_be_explained(
    case: Callable[..., Case], factor: float, unexplained: bool, said: str | None
) -> None:
    found = case(scaled("heads.1.weight", factor))
    found.unexplained = unexplained
    rung, verdict = gradients.looked_at(found)
    assert rung.evidence["wild"]
    assert rung.evidence["winner"] == ["heads.1"]
    if said is None:
        assert verdict is None
    else:
        assert verdict is not None
        assert (verdict.cause, verdict.module) == ("weights", "heads.1")
        assert said in verdict.reason


def test_a_calm_gradient_is_not_searched(case: Callable[..., Case]) -> None:
    rung, verdict = gradients.looked_at(case())
    assert verdict is None
    assert not rung.evidence["wild"]
    assert math.isfinite(rung.evidence["earlier"])


def test_what_cannot_be_held_against_each_other_is_refused(case: Callable[..., Case]) -> None:
    with pytest.raises(SettingsError, match="cannot decide"):
        case(steps=2, seeds=(0,))
    with pytest.raises(NotComparable, match="do not hold the same tensors"):
        case(lambda weights: weights.pop("heads.0.bias") and None, lenient=True)


def test_the_packages_page_names_every_module() -> None:
    named = set(re.findall(r"[a-z_]+", ckptools.rerun.__doc__ or ""))
    assert {one.name for one in pkgutil.iter_modules(ckptools.rerun.__path__)} <= named
