"""The scan on made-up models whose damage is known, and on the bundled example."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ckptools.lanes import faults
from ckptools.lanes.train import one_thread
from ckptools.rerun.search import Scan, children, closed, members, mixed, scan
from ckptools.workflows.rerun import rerun

Modules = dict[str, list[str]]


def tree(width: int, depth: int) -> Modules:
    """Return the leaves of a tree of names, one tensor each."""
    names = [""]
    for _ in range(depth):
        names = [f"{one}.{n}".lstrip(".") for one in names for n in range(width)]
    return {f"m{one}": [f"m{one}.weight"] for one in names}


def states(modules: Modules, damaged: set[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    names = {one for members_ in modules.values() for one in members_}
    good = {name: torch.zeros(()) for name in names}
    bad = {n: torch.ones(()) if n.removesuffix(".weight") in damaged else good[n] for n in names}
    return bad, good


def additive(weights: Mapping[str, Tensor]) -> float:
    """Each damaged module adds to the loss."""
    return 5.0 + 2.0 * sum(float(value) for value in weights.values())


def all_or_nothing(weights: Mapping[str, Tensor]) -> float:
    """One damaged module is as bad as several: restoring one of two changes nothing."""
    return 9.0 if any(float(value) for value in weights.values()) else 5.0


def search(modules: Modules, damaged: set[str], measure: object = additive) -> tuple[Scan, int]:
    bad, good = states(modules, damaged)
    calls: list[float] = []

    def counted(weights: Mapping[str, Tensor]) -> float:
        calls.append(measure(weights))  # type: ignore[operator]
        return calls[-1]

    found = scan(
        counted,
        bad,
        good,
        modules,
        bad_loss=measure(bad),  # type: ignore[operator]
        good_loss=measure(good),  # type: ignore[operator]
    )
    return found, len(calls)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_one_damaged_module_is_found_wherever_it_lies(data: st.DataObject) -> None:
    modules = tree(data.draw(st.integers(2, 6)), data.draw(st.integers(1, 4)))
    where = data.draw(st.sampled_from(sorted(modules)))
    found, _ = search(modules, {where})
    assert found.single == where
    assert found.share == pytest.approx(1.0)
    assert all(abs(sham) < 1e-9 for sham in found.shams.values())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_two_at_once_are_found(data: st.DataObject) -> None:
    modules = tree(data.draw(st.integers(3, 6)), data.draw(st.integers(2, 3)))
    where = data.draw(
        st.lists(st.sampled_from(sorted(modules)), min_size=2, max_size=2, unique=True)
    )
    measure = data.draw(st.sampled_from([additive, all_or_nothing]))
    found, _ = search(modules, set(where), measure)
    assert set(found.named) == set(where)


@pytest.mark.parametrize(("depth", "most"), [(1, 6), (2, 10), (3, 14), (4, 18), (5, 22), (6, 26)])
def test_evaluations_grow_like_depth(depth: int, most: int) -> None:
    """Four children a node: 4 to 4,096 modules, four evaluations a level and two more."""
    modules = tree(4, depth)
    found, evaluations = search(modules, {sorted(modules)[-1]})
    assert found.single == sorted(modules)[-1]
    assert evaluations <= most


def test_a_long_stack_costs_its_logarithm() -> None:
    modules = {f"layers.{n}": [f"layers.{n}.weight"] for n in range(1000)}
    found, evaluations = search(modules, {"layers.777"})
    assert found.single == "layers.777"
    assert evaluations <= 8 * math.log(1000, 4)


def test_damage_everywhere_names_nothing() -> None:
    modules = tree(5, 2)
    found, _ = search(modules, set(modules))
    assert found.named == ()


def test_no_number_at_all() -> None:
    modules = tree(4, 2)

    def broken(weights: Mapping[str, Tensor]) -> float:
        return math.nan if any(float(value) for value in weights.values()) else 5.0

    found, _ = search(modules, {"m2.1"}, broken)
    assert found.single == "m2.1"
    assert found.harm == math.inf


def test_a_winner_that_stands_out_little_is_not_named() -> None:
    shams = {"b": 0.4}
    assert Scan(("a",), 0.6, 1.0, shams).single is None
    assert Scan(("a",), 0.9, 1.0, shams).single == "a"
    assert Scan(("a",), 0.9, 0.01, shams).single is None
    assert Scan(tuple("abcd"), 0.9, 1.0).single is None


def test_parts() -> None:
    assert children(("a.0", "a.1", "b")) == [("a.0", "a.1"), ("b",)]
    assert children(("a.x", "a.y")) == [("a.x",), ("a.y",)]
    assert closed(7.0, 9.0, 5.0) == 0.5
    assert closed(math.nan, 9.0, 5.0) == 0.0
    assert closed(7.0, math.inf, 5.0) == 1.0
    found = members(["a", "a.b"], ["a.b.w", "a.c", "d.e"], {"d.e": "d"})
    assert found == {"a.b": ["a.b.w"], "a": ["a.c"], "d": ["d.e"]}
    one, other = {"x.w": torch.zeros(1)}, {"x.w": torch.ones(1)}
    assert float(mixed(one, other, {"x": ["x.w"]}, ("x",))["x.w"]) == 1.0


@pytest.mark.parametrize(
    "fault",
    ["noisy-projector", "dead-queries", "rank-one-projector", "swapped-layers", "scaled-head"],
)
def test_the_damaged_module_comes_first(fault: str, lanes_run: Path, tmp_path: Path) -> None:
    source = lanes_run / "checkpoint_epoch_3.pth"
    planted = faults.plant(source, tmp_path / "sick.pth", fault, seed=1)
    with one_thread():
        found = rerun(
            planted.path,
            "ckptools.lanes.task:Lanes",
            earlier=lanes_run / "checkpoint_epoch_2.pth",
            settings={"size": "small"},
        )
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "weights")
    assert found.verdict.module is not None
    named = found.verdict.module.split(", ")
    targets = planted.target.split(", ")
    assert sorted(named) == sorted(
        next(one for one in named if one == t or t.startswith(f"{one}.")) for t in targets
    )
