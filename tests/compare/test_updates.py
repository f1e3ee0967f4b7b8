"""Cosines of successive updates and effective ranks, against a decomposition of the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptools import layouts
from ckptools.compare import updates
from ckptools.compare.changes import compare
from ckptools.compare.updates import rank_changes, turns
from ckptools.types.change import Change
from ckptools.types.checkpoint import Checkpoint

SHAPES = {"a.weight": (40, 24), "b.weight": (96, 80), "c.weight": (12, 4, 3, 3), "d.weight": (6, 9)}


def written(folder: Path, name: str, step: int, **weights: torch.Tensor) -> Checkpoint:
    path = folder / name
    torch.save({"model": weights, "global_step": step}, path)
    return layouts.open(str(path))


def draw(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def three(folder: Path, share: float) -> tuple[Checkpoint, Change]:
    """Return three files whose second update is ``share`` of the first plus something new."""
    start, first, second = draw(0), draw(1), draw(2)
    middle = {key: start[key] + 0.1 * first[key] for key in start}
    last = {key: middle[key] + 0.1 * (share * first[key] + 0.2 * second[key]) for key in start}
    a, b, c = (
        written(folder, f"{step}.pth", step, **weights)
        for step, weights in ((10, start), (20, middle), (30, last))
    )
    return a, compare(b, c)


@pytest.mark.parametrize("share", [1.0, 0.0, -1.0])
def test_cosines_are_those_of_the_whole(tmp_path: Path, share: float) -> None:
    oldest, change = three(tmp_path, share)
    found = {turn.match.name_b: turn.cosine for turn in turns(oldest, change, change.matches)}
    assert set(found) == {"a.weight", "b.weight", "c.weight"}  # d is too small to say anything
    first, second = draw(1), draw(2)
    for name in ("a.weight", "c.weight"):  # b has more elements than are read
        update = share * first[name] + 0.2 * second[name]
        whole = torch.cosine_similarity(first[name].flatten(), update.flatten(), dim=0)
        assert found[name] == pytest.approx(float(whole), abs=1e-4)
    assert found["b.weight"] == pytest.approx(share / np.hypot(share, 0.2), abs=0.06)


def test_what_did_not_move_has_no_direction(tmp_path: Path) -> None:
    oldest, change = three(tmp_path, 1.0)
    still = replace(change, b=change.a)
    assert not list(turns(oldest, still, change.matches))
    assert not list(turns(change.a, change, change.matches))
    nowhere = replace(oldest, weight_sets=())
    assert not list(turns(nowhere, change, change.matches))


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    start, first = draw(0), draw(1)
    middle = {key: start[key] + 0.1 * first[key] for key in start}
    last = {key: start[key].clone() for key in start}
    last["a.weight"][0, 0], last["a.weight"][1, 1] = torch.nan, torch.inf
    files = [
        written(tmp_path, f"{step}.pth", step, **weights)
        for step, weights in ((10, start), (20, middle), (30, last))
    ]
    change = compare(files[1], files[2])
    found = {turn.match.name_b: turn.cosine for turn in turns(files[0], change, change.matches)}
    assert found["a.weight"] == pytest.approx(-1.0, abs=1e-5)
    assert all(np.isfinite(one.after) for one in rank_changes(change, change.matches))


def effective_rank(matrix: torch.Tensor) -> float:
    values = torch.linalg.svdvals(matrix.double().flatten(1)).numpy()
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def fallen(folder: Path, keep: int) -> Change:
    """Return two files, every matrix of the newer cut down to so many singular values."""
    start = draw(0)
    last = {}
    for key, value in start.items():
        u, s, v = torch.linalg.svd(value.flatten(1), full_matrices=False)
        s[keep:] = 0
        last[key] = ((u * s) @ v).reshape(value.shape)
    return compare(written(folder, "1.pth", 10, **start), written(folder, "2.pth", 20, **last))


def test_ranks_are_exact(tmp_path: Path) -> None:
    change = fallen(tmp_path, 5)
    found = {one.match.name_b: one for one in rank_changes(change, change.matches)}
    assert set(found) == {"a.weight", "b.weight", "c.weight"}  # d has no rank to lose
    for name, one in found.items():
        assert one.rows is None
        assert one.before == pytest.approx(effective_rank(draw(0)[name]), rel=1e-5)
        assert one.after <= 5.001
        assert one.change == pytest.approx(np.log(one.after / one.before))


def test_large_ones_are_told_by_some_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "EXACT", 32)
    monkeypatch.setattr(updates, "ROWS", 16)
    change = fallen(tmp_path, 5)
    one = next(one for one in rank_changes(change, change.matches) if one.match.name_b[0] == "b")
    assert one.rows == 16
    rows = torch.cat([draw(0)["b.weight"][start : start + 4] for start in (0, 30, 61, 92)])
    assert one.before == pytest.approx(effective_rank(rows), rel=1e-5)
    assert one.after <= 5.001


def test_what_moved_most_comes_first_and_the_budget_ends_it(tmp_path: Path) -> None:
    change = fallen(tmp_path, 5)
    everything = list(rank_changes(change, change.matches))
    moved = [one.match.relative_change or 0.0 for one in everything]
    assert moved == sorted(moved, reverse=True)
    assert not list(rank_changes(change, change.matches, budget=1e3))
    some = list(rank_changes(change, change.matches, budget=5.4e6))
    assert 0 < len(some) < len(everything)


def test_what_is_zero_or_cannot_be_read_has_no_rank(tmp_path: Path) -> None:
    start = {"a.weight": torch.randn(16, 16), "b.weight": torch.randn(16, 16)}
    last = {"a.weight": torch.zeros(16, 16), "b.weight": torch.randn(16, 16)}
    a, b = written(tmp_path, "1.pth", 1, **start), written(tmp_path, "2.pth", 2, **last)
    change = compare(a, b)
    assert [one.match.name_b for one in rank_changes(change, change.matches)] == ["b.weight"]
    (tmp_path / "1.pth").write_bytes((tmp_path / "1.pth").read_bytes()[:600])
    shortened = list(rank_changes(change, change.matches))
    assert not shortened
