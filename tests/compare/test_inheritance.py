"""A damaged file takes names from the older one; an exchanged state never takes a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ckptools import layouts
from ckptools.compare.changes import compare
from ckptools.compare.inheritance import arranged_alike
from ckptools.rules import judge
from ckptools.types.change import Change
from tests.builders.pairs import FAULTS, FC1, evidence, noise, run, weight
from tests.builders.small_run import State, planted, slots, train

WEIGHT_FAULTS = ("f02 exponent bit 30", "f04 zeros", "f07 sign flipped", "f14 stale block")
SWAPS = [
    ("blocks.0.fc1.weight", FC1),
    ("embed.weight", "head.weight"),
    ("blocks.1.fc1.bias", "blocks.2.fc1.bias"),
]


def exchanged(one: str, other: str) -> Callable[[State], None]:
    """Return a fault that exchanges two states."""

    def edit(state: State) -> None:
        first, second = slots(state, one), slots(state, other)
        kept = dict(first)
        first.update(second)
        second.update(kept)

    return edit


def replaced(name: str) -> Callable[[State], None]:
    def edit(tensor: torch.Tensor) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3)))

    return weight(name, edit)


def both(*edits: Callable[[State], None]) -> Callable[[State], None]:
    def edit(state: State) -> None:
        for one in edits:
            one(state)

    return edit


def truth() -> list[str]:
    """Return the names in the optimizer's order."""
    held = torch.load(run()[0], weights_only=True)["model"]
    matrices = [name for name, value in held.items() if value.ndim > 1]
    return matrices + [name for name, value in held.items() if value.ndim == 1]


def wrong(change: Change) -> list[tuple[str, str | None]]:
    """Return (true name, name) of the states that are surely called something else."""
    states = change.b.optimizers[0].states
    return [
        (name, state.name)
        for name, state in zip(truth(), states, strict=True)
        if state.standing == "sure" and state.name != name
    ]


@pytest.mark.parametrize("name", WEIGHT_FAULTS)
def test_a_replaced_weight_is_proved(name: str) -> None:
    fault, _ = FAULTS[name]
    found = [f for f in judge(evidence(fault)).findings if f.code == "CHG101"]
    assert found[0].target == FC1
    assert found[0].confidence == "proof"


@pytest.mark.parametrize("pair", SWAPS)
@pytest.mark.parametrize("where", ["older", "newer", "both"])
def test_swaps_make_no_wrong_name_sure(pair: tuple[str, str], where: str, tmp_path: Path) -> None:
    swap = exchanged(*pair)
    damage = both(replaced(pair[0]), replaced(pair[1]))
    older = run()[3] if where == "newer" else planted(run()[3], tmp_path / "a.pth", swap)
    edits = damage if where == "older" else both(swap, damage)
    newer = planted(run()[4], tmp_path / "b.pth", edits)
    change = compare(layouts.open(older), layouts.open(newer))
    known = dict(zip(truth(), change.b.optimizers[0].states, strict=True))
    if where == "both":  # the states' owners have changed places, and so may their names
        pairs = {pair[0]: pair[1], pair[1]: pair[0]}
        left = [(true, name) for true, name in wrong(change) if pairs.get(true) != name]
        assert left == []
    else:
        assert wrong(change) == []
        for name in pair:
            assert known[name].standing != "sure" or known[name].name == name


def test_nor_in_a_long_window(tmp_path: Path) -> None:
    pair, paths = SWAPS[0], train(tmp_path, epochs=2, steps=100)
    older = planted(paths[1], tmp_path / "a.pth", exchanged(*pair))
    newer = planted(paths[2], tmp_path / "b.pth", both(replaced(pair[0]), replaced(pair[1])))
    assert wrong(compare(layouts.open(older), layouts.open(newer))) == []


def test_another_arrangement_gives_nothing() -> None:
    one = layouts.open(run()[3]).optimizers[0]
    assert arranged_alike(one, layouts.open(run()[4]).optimizers[0])
    assert not arranged_alike(one, replace(one, groups=one.groups[::-1]))
    assert not arranged_alike(one, replace(one, states=one.states[1:] + one.states[:1]))
    assert not arranged_alike(one, replace(one, kind="SGD"))


def test_names_of_an_older_pair_are_kept(tmp_path: Path) -> None:
    sick = planted(run()[4], tmp_path / "b.pth", weight("blocks.0.fc1.bias", noise))
    first = compare(layouts.open(run()[2]), layouts.open(run()[3]))
    held = {s.name for s in first.b.optimizers[0].states if s.standing == "sure"}
    change = compare(first.b, layouts.open(sick))
    kept = {s.name for s in change.b.optimizers[0].states if s.standing == "sure"}
    assert wrong(change) == []
    assert ("blocks.0.fc1.bias" in held) == ("blocks.0.fc1.bias" in kept)
