"""Gaps of healthy runs: they overfit, and they bounce; damage does neither."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from ckptools.rerun.bounce import judged, left, surely
from ckptools.rerun.displacement import overgrown, stands_out
from ckptools.rerun.features import effective_rank
from ckptools.rerun.gap import by_how_much, certainly_larger
from ckptools.rerun.measuring import Terms
from ckptools.rerun.statistics import Comparison, compare
from ckptools.types.verdict import Rung

SCAN = Rung("restore-scan", True, 0.4, message="no part of the model explains the gap by itself")
WORSE = compare([0.5, 0.4, 0.6, 0.5])


def never() -> Comparison:
    raise AssertionError("nothing is to be trained")


def after(*log_ratios: float) -> Callable[[], Comparison]:
    return lambda: left([math.exp(one) for one in log_ratios], [1.0] * len(log_ratios))


def test_what_only_validation_sees_is_no_damage() -> None:
    rung, verdict, explained = judged(SCAN, compare([-0.1, 0.1, 0.0, -0.2]), never, 12)
    assert verdict is None
    assert explained
    assert not rung.answered
    assert "overfits" in rung.message


def test_what_training_leaves_is_damage() -> None:
    rung, verdict, _ = judged(SCAN, WORSE, after(0.5, 0.6, 0.4, 0.5), 12)
    assert verdict is not None
    assert (verdict.decision, verdict.cause, verdict.scope) == ("supported", "weights", "global")
    assert rung.evidence["left_after_training"] == pytest.approx(0.5)


def test_a_module_that_moved_like_the_others_is_named_when_training_leaves_the_gap() -> None:
    _, verdict, _ = judged(SCAN, WORSE, after(0.5, 0.6, 0.4, 0.5), 12, "head")
    assert verdict is not None
    assert (verdict.module, verdict.scope) == ("head", "module")


def test_what_training_closes_is_a_bounce() -> None:
    rung, verdict, explained = judged(SCAN, WORSE, after(-0.1, 0.02, 0.0, -0.05), 12)
    assert verdict is None
    assert explained
    assert "bounces" in rung.message


def test_what_is_left_unevenly_stays_open() -> None:
    rung, verdict, explained = judged(SCAN, WORSE, after(-0.5, 0.7, 0.4, -0.2), 12)
    assert (verdict, explained) == (None, False)
    assert "unevenly" in rung.message


def test_an_arm_that_comes_to_no_number_stays_damaged() -> None:
    found = left([math.nan] * 4, [1.0] * 4)
    assert surely(found)
    assert not surely(None)


def test_a_damaged_matrix_has_moved_further_than_any_other() -> None:
    torch.manual_seed(0)
    good = {f"{n}.weight": torch.randn(8, 8) for n in range(4)} | {"0.bias": torch.zeros(8)}
    bad = {name: value + 0.05 * torch.randn_like(value) for name, value in good.items()}
    assert not any(stands_out(bad, good, {name}) for name in good)
    bad["2.weight"] = good["2.weight"] + torch.randn(8, 8)
    assert stands_out(bad, good, {"2.weight"})
    assert not stands_out(bad, good, {"1.weight", "0.bias"})
    bad["1.weight"] = torch.full((8, 8), torch.inf)
    assert stands_out(bad, good, {"1.weight"})


def test_what_no_training_makes_so_large_is_found_whatever_the_loss_says() -> None:
    good = {
        "a.weight": torch.ones(4, 4),
        "b.weight": torch.full((4, 4), 3.0),
        "a.bias": torch.ones(4),
    }
    bad = {name: value.clone() for name, value in good.items()}
    bad["a.weight"][0, 0] = 1e4
    bad["a.bias"][0] = 1e30
    assert overgrown(bad, good) == []
    bad["a.weight"][1, 2] = 1e37
    assert overgrown(bad, good) == ["a.weight"]


def test_a_term_is_larger_for_certain_by_its_batches_and_not_by_its_mean() -> None:
    def batches(*values: float) -> Terms:
        return Terms(tuple({"dir": value} for value in values))

    before = batches(1.0, 1.1, 0.9, 1.0)
    assert certainly_larger(batches(2.0, 2.1, 1.9, 2.0), before, "dir", 3)
    assert not certainly_larger(batches(9.0, 0.5, 1.1, 0.8), before, "dir", 3)
    assert not certainly_larger(batches(0.5, 0.6, 0.4, 0.5), before, "dir", 3)
    assert certainly_larger(batches(2.0, math.nan, 2.0, 2.0), before, "dir", 3)


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (0.2, "20.0% worse than"),
        (-0.03, "3.0% better than"),
        (2.9e7, "2.9e+07 times"),
        (math.inf, "infinitely worse than"),
        (-math.inf, "infinitely better than"),
    ],
)
def test_how_much_worse_is_said_so_that_it_can_be_read(effect: float, words: str) -> None:
    assert by_how_much(effect) == words


def test_outputs_near_the_largest_float_have_a_rank() -> None:
    assert effective_rank(torch.randn(16, 4) * 1e38) > 1.0
