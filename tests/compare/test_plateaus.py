"""What ReduceLROnPlateau can leave in a file, against torch's own over many metrics."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ckptools.compare.plateaus import (
    contradictions,
    got_worse,
    is_plateau,
    least_rate,
    most_reductions,
    reductions,
)

State = dict[str, Any]
LEAST = 1e-3


def course(metrics: list[float], **given_: Any) -> list[tuple[float, State]]:
    """Return the rate and the state after every metric, and before the first."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = ReduceLROnPlateau(optimizer, min_lr=LEAST, **given_)
    found = [(0.1, scheduler.state_dict() | {})]
    for metric in metrics:
        optimizer.step()
        scheduler.step(metric)
        found.append((optimizer.param_groups[0]["lr"], scheduler.state_dict() | {}))
    return found


values = st.one_of(st.floats(0, 2), st.sampled_from([math.nan, math.inf, 1.0]))


@settings(max_examples=60, deadline=None)
@given(
    metrics=st.lists(values, min_size=1, max_size=40),
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 3),
    factor=st.sampled_from([0.1, 0.5, 0.9]),
    mode=st.sampled_from(["min", "max"]),
)
def test_no_true_history_is_accused(
    metrics: list[float], patience: int, cooldown: int, factor: float, mode: str
) -> None:
    found = course(metrics, patience=patience, cooldown=cooldown, factor=factor, mode=mode)
    for first, (lr_a, older) in enumerate(found):
        assert is_plateau(older)
        assert not list(contradictions(older))
        for second, (lr_b, newer) in enumerate(found[first:], first):
            times = reductions(newer, lr_a, lr_b, least_rate(newer, 0))
            assert times is not None
            assert times <= most_reductions(newer, second - first, older["num_bad_epochs"])
            assert not got_worse(older, newer)


@pytest.mark.parametrize(("patience", "cooldown"), [(0, 0), (2, 0), (1, 3)])
def test_the_most_reductions_are_reached(patience: int, cooldown: int) -> None:
    found = course([math.nan] * 12, patience=patience, cooldown=cooldown, factor=0.9)
    for calls, (lr, state) in enumerate(found):
        assert reductions(state, 0.1, lr, LEAST) == most_reductions(state, calls)


def test_the_smallest_contradictions_are_told() -> None:
    (_, state) = course([1.0, 2.0, 2.0], patience=2, cooldown=2, factor=0.5)[-1]
    assert not list(contradictions(state))
    for wrong in (
        {"num_bad_epochs": 3},
        {"num_bad_epochs": -1},
        {"patience": 9, "num_bad_epochs": 4},
        {"cooldown_counter": 3},
        {"cooldown_counter": 1},
        {"best": math.nan},
    ):
        assert len(list(contradictions(state | wrong))) == 1, wrong


def test_rates_that_no_power_gives() -> None:
    (_, state) = course([1.0], factor=0.5)[-1]
    assert reductions(state, 0.1, 0.05, None) == 1
    assert reductions(state, 0.1, 0.0125, None) == 3
    assert reductions(state, 0.1, 0.0501, None) is None
    assert reductions(state, 0.1, 0.2, None) is None
    assert reductions(state, 0.1, 0.03, 0.03) == 2
    assert reductions(state | {"factor": 1.5}, 0.1, 0.05, None) is None


def test_a_best_metric_that_got_worse() -> None:
    (_, state) = course([1.0])[-1]
    assert got_worse(state, state | {"best": 1.1})
    assert got_worse(state | {"mode": "max"}, state | {"best": 0.9, "mode": "max"})
    assert not got_worse(state, state | {"best": 0.9})
    assert not got_worse(state | {"best": None}, state)
    assert least_rate({}, 0) is None
