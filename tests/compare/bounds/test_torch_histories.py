"""torch's own Adam and AdamW, every implementation on a CPU, against all bounds."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from ckptools.compare.bounds.clip import clip, parameter_sums
from ckptools.compare.bounds.displacement import loose
from ckptools.compare.bounds.pair import Pair, judge_pair
from ckptools.compare.bounds.premises import AdamPremises, from_settings
from tests.builders.gradient_families import families, matrix, scaled

STEPS = 160
WINDOWS = [(0, 1), (1, 2), (2, 20), (10, 13), (40, 41), (40, 160)]
SCALES = (1e-20, 1e-9, 1e-3, 1.0, 1e10)

VARIANTS = [
    (torch.optim.AdamW, {"foreach": False, "weight_decay": 0.1}, "float32"),
    (torch.optim.AdamW, {"foreach": True, "betas": (0.9, 0.95)}, "float32"),
    (torch.optim.AdamW, {"fused": True, "betas": (0.8, 0.99)}, "float32"),
    (torch.optim.Adam, {"foreach": False, "weight_decay": 0.01, "eps": 1e-15}, "float32"),
    (torch.optim.Adam, {"foreach": True, "amsgrad": True, "betas": (0.95, 0.999)}, "float32"),
    (torch.optim.AdamW, {"amsgrad": True, "betas": (0.0, 0.999)}, "float32"),
    (torch.optim.AdamW, {"betas": (0.95, 0.9), "weight_decay": 0.01}, "float32"),
    (torch.optim.AdamW, {"foreach": False, "weight_decay": 0.1}, "bfloat16"),
    (torch.optim.Adam, {"foreach": True, "eps": 1e-6, "betas": (0.9, 0.95)}, "bfloat16"),
]


def arrays(parameter: torch.Tensor, optimizer: torch.optim.Optimizer) -> tuple[Any, Any, Any]:
    """Return copies of weight and moments in float64, exact for every dtype."""
    state = optimizer.state[parameter]
    zero = torch.zeros_like(parameter)
    tensors = (parameter, state.get("exp_avg", zero), state.get("exp_avg_sq", zero))
    return tuple(tensor.detach().double().numpy().copy() for tensor in tensors)


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize(("kind", "options", "dtype"), VARIANTS)
def test_torch_stays_within(kind: type, options: dict[str, Any], dtype: str, skips: bool) -> None:
    rng = np.random.default_rng(len(str(options)) + skips)
    beta1, beta2 = options.get("betas", (0.9, 0.999))
    rows = scaled(matrix(families(rng, STEPS, beta1, beta2)), SCALES)
    start = rng.choice([0.0, 1e-4, 0.3, 50.0], len(rows)) * rng.choice([-1, 1], len(rows))
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=getattr(torch, dtype)))
    optimizer = kind([parameter], lr=1e-3, **options)
    history, rates, own = [arrays(parameter, optimizer)], [], 0
    for call in range(STEPS):
        lr = 1e-3 * (1 + np.cos(np.pi * call / STEPS)) / 2 + 1e-5
        optimizer.param_groups[0]["lr"] = lr
        if skips and rng.random() < 0.3:
            parameter.grad = None
        else:
            parameter.grad = torch.tensor(rows[:, own], dtype=parameter.dtype)
            rates.append(lr)
            own += 1
        optimizer.step()
        if parameter.grad is not None:
            history.append(arrays(parameter, optimizer))
    worst: dict[str, float] = defaultdict(float)
    for t0, t in WINDOWS:
        if t >= len(history):
            continue
        premises = from_settings(
            optimizer.state_dict()["param_groups"][0],
            optimizer.state_dict()["param_groups"][0],
            kind=kind.__name__,
            step=t,
            earlier_step=t0,
            learning_rates=tuple(rates[t0:t]),
            state_dtype=dtype,
            weight_dtype=dtype,
        )
        assert premises.failed == ()
        (w0, m0, v0), (w1, m1, v1) = history[t0], history[t]
        for name, result in judge_pair(Pair(w0, w1, m0, v0, m1, v1), premises).items():
            assert result.above == 0, (name, (t0, t), result)
            worst[name] = max(worst[name], result.ratio or 0.0)
    assert worst["moment"] > 0.95
    assert worst["innovation"] > 0.95


def test_a_known_initial_value_is_enough_for_one_file() -> None:
    rows = np.ones((3, 50)) * np.array([[1.0], [1e-3], [-1e4]])
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter], lr=1e-2, weight_decay=0.0)
    for column in rows.T:
        parameter.grad = torch.tensor(column, dtype=torch.float32)
        optimizer.step()
    premises = AdamPremises(step=50, learning_rates=(1e-2,) * 50)
    honest = loose(np.zeros(3), parameter.detach().numpy(), premises)
    assert 0.1 < honest.ratio <= 1
    assert loose(np.zeros(3), np.array([0.0, 8.0, 0.0]), premises).above == 1


def test_master_copy_in_bfloat16() -> None:
    rng = np.random.default_rng(3)
    rows = scaled(matrix(families(rng, 60, 0.9, 0.999)), (1e-6, 1.0))
    parameter = torch.nn.Parameter(torch.tensor(rng.standard_normal(len(rows))).float())
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.1)
    history = []
    for column in rows.T:
        parameter.grad = torch.tensor(column, dtype=torch.float32)
        optimizer.step()
        w, m, v = arrays(parameter, optimizer)
        copy = torch.tensor(w).bfloat16().double().numpy()
        history.append((copy, m, v))
    for t0, t in [(10, 11), (10, 20), (20, 60)]:
        premises = AdamPremises(
            step=t,
            earlier_step=t0,
            weight_decay=0.1,
            learning_rates=(1e-3,) * (t - t0),
            weight_dtype="bfloat16",
            master=True,
        )
        (w0, m0, v0), (w1, m1, v1) = history[t0 - 1], history[t - 1]
        for name, result in judge_pair(Pair(w0, w1, m0, v0, m1, v1), premises).items():
            assert result.above == 0, (name, t0, t, result)


@pytest.mark.parametrize("skip", [0.0, 0.5])
def test_a_global_clip_bounds_all_moments_together(skip: float) -> None:
    rng = np.random.default_rng(0)
    limit, steps = 5.0, 120
    parameters = [torch.nn.Parameter(torch.zeros(40)) for _ in range(4)]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for _ in range(steps):
        for index, parameter in enumerate(parameters):
            absent = index > 0 and rng.random() < skip
            gradient = torch.tensor(rng.standard_normal(40) * 100, dtype=torch.float32)
            parameter.grad = None if absent else gradient
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        optimizer.step()
    states = [optimizer.state[parameter] for parameter in parameters]
    parts = [
        parameter_sums(s["exp_avg"].numpy(), s["exp_avg_sq"].numpy(), int(s["step"]))
        for s in states
    ]
    result = clip(parts, limit, steps, AdamPremises(step=steps))
    assert result.ratio <= 1
    assert result.ratio > (0.999 if skip == 0 else 0.5)
    assert clip(parts, limit * result.ratio * 0.999, steps, AdamPremises(step=steps)).above == 1
