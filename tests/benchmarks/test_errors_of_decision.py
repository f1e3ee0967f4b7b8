"""A small version of the simulation: the large one prints its table from benchmarks/."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.errors_of_decision import COURSES, KINDS, Kind, climbed, last_rung, most
from benchmarks.simulated_runs import drawn
from ckptools.lanes.train import one_thread


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def kind(name: str) -> Kind:
    (found,) = (one for one in KINDS if one.name == name)
    return found


def counted(asked: Kind, count: int) -> int:
    rng = np.random.default_rng(3)
    found = (climbed(drawn(rng), asked.change) for _ in range(count))
    return sum(asked.counts(verdict, target) for _, verdict, target in found)


@pytest.mark.parametrize("name", [one.name for one in KINDS if one.null])
def test_whole_climbs_are_hardly_ever_wrong_on_nulls(name: str) -> None:
    assert counted(kind(name), 10) <= 1


def test_whole_climbs_find_one_damaged_module() -> None:
    assert counted(kind("one module"), 10) >= 7


@pytest.mark.parametrize("course", COURSES, ids=lambda one: one.name)
def test_the_last_rung_keeps_alpha_wherever_it_stops(course: object) -> None:
    (asked,) = (one for one in COURSES if one is course)
    found = last_rung(asked, 100, 1)
    assert found["wrong"] <= most(100)
    if asked.name == "healthy" or ("worse" in asked.name and "margin" not in asked.name):
        assert found["right"] >= 0.7
    if asked.name in ("healthy", "optimizer state, 1 worse"):
        assert found["saved"] > 0.05
