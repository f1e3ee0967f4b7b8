"""SGD, Adagrad, RMSprop, Lion and BatchNorm: attained, never passed, and firing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ckptools.compare.bounds.batchnorm import variance_decay
from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.relatives import (
    accumulator_growth,
    adamax_moment,
    largest_decay,
    lion,
    momentum_update,
    rmsprop_buffer,
    second_moment_displacement,
    sgd_rate,
    sgd_replay,
)
from tests.builders.gradient_families import families, matrix, scaled

STEPS, LR = 120, 1e-2


def run(kind: type, slot: str, options: dict, seed: int = 0) -> list[tuple]:
    rng = np.random.default_rng(seed)
    rows = scaled(matrix(families(rng, STEPS, 0.9, 0.99)), (1e-6, 1.0, 1e6))
    start = rng.choice([0.0, 0.1, 3.0], len(rows))
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    optimizer = kind([parameter], lr=LR, **options)
    states = []
    for column in rows.T:
        parameter.grad = torch.tensor(column, dtype=torch.float32)
        optimizer.step()
        state = optimizer.state[parameter].get(slot)
        value = np.zeros(len(rows)) if state is None else state.numpy().copy()
        states.append((parameter.detach().numpy().copy(), value))
    return states


@pytest.mark.parametrize("adagrad", [True, False])
def test_adagrad_and_rmsprop_travel(adagrad: bool) -> None:
    if adagrad:
        states = run(torch.optim.Adagrad, "sum", {})
    else:
        states = run(torch.optim.RMSprop, "square_avg", {"alpha": 0.99})
    largest = 0.0
    for t0, t in [(1, 2), (1, 30), (50, 51), (50, 119)]:
        premises = AdamPremises(
            beta2=0.99,
            eps=1e-10 if adagrad else 1e-8,
            step=t,
            earlier_step=t0,
            lr_max=LR,
            weight_decay=0,
        )
        (w0, s0), (w1, s1) = states[t0 - 1], states[t - 1]
        result = second_moment_displacement(w0, w1, s0, s1, premises, adagrad=adagrad)
        assert result.above == 0, (t0, t, result)
        largest = max(largest, result.ratio)
        far = w1 + np.float32(LR * (t - t0) * 30)
        bad = second_moment_displacement(w0, far, s0, s1, premises, adagrad=adagrad)
        assert bad.above > 0.9 * len(w0)
        if adagrad:
            assert accumulator_growth(s0, s1, premises).above == 0
            assert accumulator_growth(s1, s0 * 0.999, premises).above > 0
    assert largest > 0.95


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 0.01},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 0.5},
    ],
)
def test_sgd_replays_one_step(options: dict) -> None:
    states = run(torch.optim.SGD, "momentum_buffer", options)
    largest = 0.0
    for step in range(1, STEPS - 1):
        (w0, b0), (w1, b1) = states[step], states[step + 1]
        settings = {key: options[key] for key in options if key != "weight_decay"}
        direction = momentum_update(b0, b1, **settings)
        premises = AdamPremises(step=step + 2, earlier_step=step + 1)
        one = sgd_replay(w0, w1, direction, LR, premises)
        assert one.above == 0 or options.get("nesterov"), (step, one)
        largest = max(largest, one.ratio if one.above == 0 else 0.0)
    assert largest > 0.5
    (w0, b0), (w1, b1) = states[50], states[51]
    settings = {key: options[key] for key in options if key != "weight_decay"}
    direction = momentum_update(b0, b1, **settings)
    premises = AdamPremises(step=52, earlier_step=51)
    small = np.abs(b1) < 1e3
    honest = sgd_replay(w0[small], w1[small], direction[small], LR, premises)
    assert honest.above == 0
    bad = sgd_replay(w0, w1, direction * 1.001, LR, premises)
    assert bad.above > 0.3 * len(w0)


def test_lion_moves_by_its_learning_rates() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal(100).astype(np.float32)
    start = w.copy()
    for step in range(50):
        sign = np.sign(rng.standard_normal(100)) if step % 2 else np.ones(100)
        w = w * np.float32(1 - LR * 0.1) - np.float32(LR) * sign.astype(np.float32)
    premises = AdamPremises(step=60, earlier_step=10, learning_rates=(LR,) * 50, weight_decay=0.1)
    assert 0.5 < lion(start, w, premises).ratio <= 1
    assert lion(start, w - np.float32(1.0), premises).above == 100


def test_batchnorm_variance_decays_no_faster_than_its_momentum() -> None:
    layer = torch.nn.BatchNorm1d(3)
    before = layer.running_var.numpy().copy()
    for _ in range(30):
        layer(torch.zeros(8, 3))
    after = layer.running_var.numpy()
    assert 0.99 < variance_decay(after, 30, var_a=before).ratio <= 1
    assert variance_decay(after, 30).above == 0
    assert variance_decay(after * np.float32(0.9999), 30).above == 3
    assert variance_decay(np.array([-1e-9]), 30).above == 1
    assert variance_decay(after, -1).failed == ("step-order",)


@pytest.mark.parametrize(
    "options", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5}]
)
def test_sgd_replays_with_a_rate_that_it_solves(options: dict) -> None:
    states = run(torch.optim.SGD, "momentum_buffer", options)
    premises = AdamPremises(step=52, earlier_step=51)
    for first in (0, 50, 90):
        (w0, b0), (w1, b1) = states[first], states[first + 1]
        kept = np.abs(b1) < 1e3
        direction = momentum_update(b0[kept], b1[kept], **options)
        rate = sgd_rate(w0[kept], w1[kept], direction, premises)
        assert abs(rate.value - LR) <= rate.uncertainty < 0.05 * LR
        honest = sgd_replay(
            w0[kept], w1[kept], direction, rate.value, premises, uncertainty=rate.uncertainty
        )
        assert honest.above == 0
        wrong = w1[kept].copy()
        place = int(np.argmax(np.abs(direction)))
        wrong[place] += 0.1 * LR * np.abs(direction[place])
        again = sgd_rate(w0[kept], wrong, direction, premises)
        one = sgd_replay(
            w0[kept], wrong, direction, again.value, premises, uncertainty=again.uncertainty
        )
        assert one.above > 0


def adamax(beta1: float, beta2: float, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    found = families(rng, STEPS, beta1, beta2)
    t = np.arange(STEPS)
    found["attaining"] = beta2 ** (STEPS - t.astype(float))
    found["attaining-early"] = np.where(t < 12, beta2 ** -np.minimum(t, 12.0), 0.0)
    rows = scaled(matrix(found), (1e-30, 1e-20, 1.0, 1e18))
    parameter = torch.nn.Parameter(torch.zeros(len(rows)))
    optimizer = torch.optim.Adamax([parameter], lr=LR, betas=(beta1, beta2))
    states = []
    for column in rows.T:
        parameter.grad = torch.tensor(column, dtype=torch.float32)
        optimizer.step()
        state = optimizer.state[parameter]
        states.append((state["exp_avg"].numpy().copy(), state["exp_inf"].numpy().copy()))
    return states


@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.9, 0.95), (0.95, 0.9), (0.0, 0.99)])
def test_adamax_keeps_its_first_moment_below_its_largest_gradient(
    beta1: float, beta2: float
) -> None:
    states = adamax(beta1, beta2)
    largest = 0.0
    for t in (1, 2, 12, 60, STEPS):
        m, u = states[t - 1]
        premises = AdamPremises(beta1=beta1, beta2=beta2, step=t)
        result = adamax_moment(m, u, premises)
        assert result.above == 0, (t, result)
        assert adamax_moment(np.abs(m).max(), u.max(), premises).above == 0
        largest = max(largest, result.ratio)
        place = result.index
        bad = u[[place]] * (result.ratio * 0.999)
        assert adamax_moment(m[[place]], bad.astype(np.float32), premises).above == 1
        if t > 12:
            window = AdamPremises(beta1=beta1, beta2=beta2, step=t, earlier_step=12)
            before = states[11][1]
            assert largest_decay(before, u, window).above == 0
            least = before * np.float32(beta2 ** (t - 12) * 0.999)
            grown = (before > 1e-6) & np.isfinite(before)
            assert largest_decay(before[grown], least[grown], window).above == grown.sum()
    assert largest > 0.99


@pytest.mark.parametrize(("alpha", "momentum"), [(0.99, 0.9), (0.9, 0.5), (0.99, 0.99)])
def test_rmsprop_buffers_are_bounded(alpha: float, momentum: float) -> None:
    rng = np.random.default_rng(0)
    found = families(rng, STEPS, momentum, alpha)
    growing = np.exp(np.minimum(np.arange(STEPS), 40) * 2.0)  # each gradient dwarfs the ones before
    found["dwarfing"] = growing / growing.max()
    rows = scaled(matrix(found), (1e-18, 1.0, 1e15))
    parameter = torch.nn.Parameter(torch.zeros(len(rows)))
    optimizer = torch.optim.RMSprop([parameter], lr=LR, alpha=alpha, momentum=momentum)
    largest = 0.0
    for t, column in enumerate(rows.T, 1):
        parameter.grad = torch.tensor(column, dtype=torch.float32)
        optimizer.step()
        buffer = float(optimizer.state[parameter]["momentum_buffer"].abs().max())
        premises = AdamPremises(beta2=alpha, eps=1e-8, step=t)
        result = rmsprop_buffer(buffer, momentum, premises)
        assert result.above == 0, (t, result)
        largest = max(largest, result.ratio)
        assert rmsprop_buffer(buffer / result.ratio * 1.001, momentum, premises).proves
    assert largest > 0.95
