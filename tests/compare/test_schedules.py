"""The closed forms against torch's schedulers, step by step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from torch.optim import lr_scheduler

from ckptools.compare.schedules import base_rates, odd_factors, parts_apart, rate
from tests.builders.schedulers import BASE, BUILD, OTHER, saved

#: Their rates follow a metric or a function, or (before its end) a rate that no state holds.
FREE = ("LambdaLR", "LambdaLR closure", "MultiplicativeLR", "ReduceLROnPlateau", "SWALR")


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as a layout gives it: the counter of milestones is a mapping of texts."""
    return {
        key: {str(k): n for k, n in value.items()} if isinstance(value, Counter) else value
        for key, value in state.items()
    }


def test_every_scheduler_of_torch_is_here() -> None:
    built = {name.partition(" ")[0] for name in BUILD}
    assert built >= set(lr_scheduler.__all__) - {"LRScheduler"}


@pytest.mark.parametrize("name", [name for name in BUILD if name not in FREE])
def test_agrees_with_torch(name: str) -> None:
    for state in saved(name, 65):
        scheduler, groups = plain(state["scheduler"]), state["optimizer"]["param_groups"]
        bases = base_rates(scheduler)
        assert bases is not None
        assert name.startswith(("OneCycle", "CyclicLR ")) or bases == [BASE, OTHER]
        for index, (group, base) in enumerate(zip(groups, bases, strict=True)):
            due = rate(scheduler, group, base, index)
            assert due == pytest.approx(group["lr"], rel=1e-9, abs=1e-12)
        assert parts_apart(scheduler) is None


def test_the_end_of_swa_is_known() -> None:
    states = saved("SWALR", 20)
    for epoch in (12, 13, 20):
        scheduler, group = states[epoch]["scheduler"], states[epoch]["optimizer"]["param_groups"][0]
        assert rate(scheduler, group, BASE) == pytest.approx(group["lr"], rel=1e-9)
    assert rate(states[5]["scheduler"], group, BASE) is None


@pytest.mark.parametrize("name", FREE[:3])
def test_functions_give_all_groups_one_factor(name: str) -> None:
    for state in saved(name, 9):
        rates = [group["lr"] for group in state["optimizer"]["param_groups"]]
        scheduler = state["scheduler"]
        assert rate(scheduler, {}, BASE) is None
        factors = odd_factors(scheduler, rates)
        assert factors is not None
        assert not factors.odd
        factors = odd_factors(scheduler, [rates[0], 0.4 * rates[1]])
        assert factors is not None
        assert set(factors.odd) == {1}
        assert not factors.outvoted


def test_a_majority_outvotes_one_group() -> None:
    state = {"lr_lambdas": [None] * 3, "base_lrs": [0.1, 0.2, 0.3]}
    factors = odd_factors(state, [0.05, 0.02, 0.15])
    assert factors is not None
    assert factors.outvoted
    assert factors.odd == {1: pytest.approx(0.1)}
    assert odd_factors(state | {"lr_lambdas": [{"a": 1}, None, None]}, [1, 2, 3]) is None
    assert odd_factors(state | {"gamma": 1}, [1, 2, 3]) is None
    assert odd_factors(state, [1, 2]) is None
    assert odd_factors(state | {"base_lrs": [0, 0, 0]}, [1, 2, 3]) is None


def test_parts_that_stand_apart() -> None:
    chained = saved("ChainedScheduler", 5)[5]["scheduler"]
    chained["_schedulers"][1]["last_epoch"] = 2
    assert parts_apart(chained) == [5, 2, 5]
    sequential = saved("SequentialLR", 20)[20]["scheduler"]
    sequential["_schedulers"][1]["last_epoch"] = 3
    assert parts_apart(sequential) is not None
    assert parts_apart({"_schedulers": [{"last_epoch": None}], "_milestones": []}) is None
    assert parts_apart({"_schedulers": "none"}) is None


def test_what_is_not_known_has_no_rate() -> None:
    cosine = {"T_max": 10, "eta_min": 0.0, "base_lrs": [BASE], "last_epoch": 3}
    assert rate(cosine, {}, BASE) is not None
    assert rate(cosine | {"warm_up": 3}, {}, BASE) is None
    assert rate(cosine | {"last_epoch": None}, {}, BASE) is None
    assert rate(cosine | {"T_max": 0}, {}, BASE) is None
    assert rate(cosine | {"T_max": "ten"}, {}, BASE) is None
    assert rate({}, {}, BASE) is None
    assert base_rates({"base_lrs": [BASE, "x"]}) is None
    cyclic = saved("CyclicLR", 3)[3]["scheduler"]
    assert rate(cyclic, {}, BASE, 0) is not None
    assert rate(cyclic | {"_scale_fn_custom": {"a": 1}}, {}, BASE, 0) is None
    assert rate(cyclic | {"mode": "own"}, {}, BASE, 0) is None
    restarts = saved("CosineAnnealingWarmRestarts", 3)[3]["scheduler"]
    assert rate({"_schedulers": [restarts]}, {}, BASE) is None
    assert rate({"_schedulers": [cosine]}, {}, 0.0) is None
