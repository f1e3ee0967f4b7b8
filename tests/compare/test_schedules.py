"""The closed forms against torch's schedulers, step by step."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from ckptools.compare.schedules import base_rates, rate

BASE = 0.1
BUILD: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: schedulers.StepLR(o, 7, 0.5),
    "multi": lambda o: schedulers.MultiStepLR(o, [5, 9, 9, 30]),
    "exponential": lambda o: schedulers.ExponentialLR(o, 0.97),
    "constant": lambda o: schedulers.ConstantLR(o, 0.3, 9),
    "linear": lambda o: schedulers.LinearLR(o, 0.1, 1, 20),
    "polynomial": lambda o: schedulers.PolynomialLR(o, 80, 2.0),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, 30, 1e-5),
    "restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 10, 2, 1e-6),
    "one-cycle": lambda o: schedulers.OneCycleLR(o, 0.2, 70),
    "one-cycle-linear": lambda o: schedulers.OneCycleLR(
        o, 0.2, 70, anneal_strategy="linear", three_phase=True
    ),
    "sequential": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, 1, 12), schedulers.CosineAnnealingLR(o, 40)], [12]
    ),
}


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as a layout gives it: the counter of milestones is a mapping of texts."""
    return {
        key: {str(k): n for k, n in value.items()} if isinstance(value, Counter) else value
        for key, value in state.items()
    }


@pytest.mark.parametrize("name", BUILD)
def test_agrees_with_torch(name: str) -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns of its own way to start
        scheduler = BUILD[name](optimizer)
        for _ in range(65):
            group, state = optimizer.param_groups[0], plain(scheduler.state_dict())
            assert rate(state, group, BASE) == pytest.approx(group["lr"], rel=1e-9, abs=1e-12)
            assert name.startswith("one") or base_rates(state) == [BASE]
            optimizer.step()
            scheduler.step()


def test_what_is_not_known_has_no_rate() -> None:
    cosine = {"T_max": 10, "eta_min": 0.0, "base_lrs": [BASE], "last_epoch": 3}
    assert rate(cosine, {}, BASE) is not None
    assert rate(cosine | {"warm_up": 3}, {}, BASE) is None
    assert rate(cosine | {"last_epoch": None}, {}, BASE) is None
    assert rate(cosine | {"T_max": 0}, {}, BASE) is None
    assert rate(cosine | {"T_max": "ten"}, {}, BASE) is None
    assert rate({}, {}, BASE) is None
    assert base_rates({"base_lrs": [BASE, "x"]}) is None
