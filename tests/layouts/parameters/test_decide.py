"""Dozens of synthetic optimizers: nothing sure is wrong, nearly everything ordered is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ckptools.layouts.parameters.decide import decide
from ckptools.layouts.parameters.pair import decide_pair
from tests.builders.optimizer_puzzles import (
    ArrayMoves,
    Puzzle,
    Score,
    block_of,
    by_first_sight,
    lone_swaps,
    parameters,
    puzzle,
    puzzles,
    split,
)
from tests.builders.small_models import Snapshot, train


@pytest.fixture(scope="module")
def asked(runs: dict[str, Snapshot]) -> list[Puzzle]:
    return puzzles(runs)


@pytest.fixture(scope="module")
def scores(asked: list[Puzzle]) -> list[tuple[Puzzle, Score]]:
    """Return every puzzle with how one file's answer fared."""
    return [(one, Score.of(one, decide(one.problem, one.places, one.values))) for one in asked]


def test_there_are_enough_kinds_of_optimizers(asked: list[Puzzle]) -> None:
    assert len({one.name.split(":")[1] for one in asked}) >= 20
    assert len(asked) >= 60


def test_one_file(scores: list[tuple[Puzzle, Score]]) -> None:
    for one, score in scores:
        assert score.wrong_sure == [], one.name
        if one.ordered and not one.swapped:
            assert score.right >= 0.9, (one.name, score.counts)
            assert score.counts["by_order wrong"] == 0, one.name


def test_states_proved_by_one_file_are_many(scores: list[tuple[Puzzle, Score]]) -> None:
    counts = [score.counts for one, score in scores if one.ordered and not one.swapped]
    sure, total = sum(c["sure right"] for c in counts), sum(sum(c.values()) for c in counts)
    assert sure / total > 0.45


def test_without_any_order_relations_still_name_some(scores: list[tuple[Puzzle, Score]]) -> None:
    unordered = [score.counts for one, score in scores if not one.ordered]
    assert sum(counts["sure right"] for counts in unordered) > 60
    assert all(counts["by_order wrong"] == 0 for counts in unordered)


def test_headers_alone_are_never_sure_but_of_single_shapes(asked: list[Puzzle]) -> None:
    for one in asked:
        answer = decide(one.problem, one.places, None)
        score = Score.of(one, answer)
        if one.swapped:
            continue
        assert score.wrong_sure == []
        if one.ordered and not any(w in one.name for w in ("frozen", "reversed", "last first")):
            assert score.counts["by_order wrong"] <= 4, one.name
        shapes = [one.problem.slots[s] for s, st in enumerate(answer.standings) if st == "sure"]
        assert all(one.problem.slots.count(shape) == 1 for shape in shapes)


@pytest.mark.parametrize("kind", ["gpt", "llama", "cnn", "lora", "lstm", "mlp"])
def test_exchanged_states_are_never_sure(kind: str, runs: dict[str, Snapshot]) -> None:
    run = runs[kind]
    names = parameters(run)
    rng = np.random.default_rng(1)
    for number in range(10):
        groups = [names] if number % 2 else split(names, lambda n: run.weights[n].ndim > 1)
        one = puzzle(f"{kind} {number}", run, groups, swaps=lone_swaps(run, names, rng))
        score = Score.of(one, decide(one.problem, one.places, one.values))
        assert score.wrong_sure == []


def test_consecutive_files_name_everything(
    asked: list[Puzzle], histories: dict[str, list[Snapshot]]
) -> None:
    for one in asked:
        moves = ArrayMoves(one, histories[one.name.split(":")[0]][1])
        score = Score.of(one, decide_pair(one.problem, one.places, moves, one.values))
        assert score.wrong_sure == []
        if one.ordered:
            assert score.right == 1.0, (one.name, score.counts)
        if one.swapped:
            assert score.counts["by_order wrong"] == 0


def test_ten_steps_apart(asked: list[Puzzle], histories: dict[str, list[Snapshot]]) -> None:
    for one in asked[::3]:
        moves = ArrayMoves(one, histories[one.name.split(":")[0]][0])
        score = Score.of(one, decide_pair(one.problem, one.places, moves, one.values))
        assert score.wrong_sure == []
        if one.ordered and not one.swapped:
            assert score.right >= 0.9, (one.name, score.counts)


def test_a_text_sorted_file_without_evidence_leaves_what_orders_contest_open(
    runs: dict[str, Snapshot],
) -> None:
    run = runs["mlp"]
    names = parameters(run)
    one = puzzle("text", run, [names], file=sorted(names))
    answer = decide(one.problem, one.places, None)
    assert Score.of(one, answer).counts["by_order wrong"] == 0


def test_a_module_whose_moments_are_anothers_loses_its_names(runs: dict[str, Snapshot]) -> None:
    run = runs["gpt"]
    names = parameters(run)
    swaps = [("blocks.1.attn.q.weight", "blocks.2.attn.v.weight")]
    one = puzzle("exchanged", run, [names], swaps=swaps)
    answer = decide(one.problem, one.places, one.values)
    for name in swaps[0]:
        assert answer.standings[one.truth.index(name)] == "ambiguous"
        assert answer.candidates[one.truth.index(name)] is None


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
        {"optimizer": "Adam", "weight_decay": 0.02},
    ],
    ids=["SGD", "Adam with coupled decay"],
)
def test_blocks_that_began_as_copies_are_told_apart(options: dict[str, Any]) -> None:
    (now,) = train("encoder", (160,), **options)
    names = parameters(now)
    blocks = by_first_sight(names, block_of)
    for groups in (
        blocks[::-1],
        [[n for n in names if block_of(n) not in (0, 1)]],
        [[n for n in names if block_of(n) != 0]],
        [[n for n in names if block_of(n) in (1, 2)]],
    ):
        one = puzzle("copies", now, groups)
        score = Score.of(one, decide(one.problem, one.places, one.values))
        assert score.counts["by_order wrong"] == 0
        assert score.wrong_sure == []
        assert score.right >= 0.85
