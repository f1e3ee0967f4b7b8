"""Adversarial histories come close to every bound and never pass it: numpy simulator."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from ckptools.compare.bounds.decay import amsgrad_maximum
from ckptools.compare.bounds.displacement import eps_aware, loose, tight
from ckptools.compare.bounds.pair import Pair, judge_pair
from ckptools.compare.bounds.premises import AdamPremises
from tests.builders.adam_simulator import Adam
from tests.builders.gradient_families import families, matrix, scaled

BETAS = [(0.9, 0.999), (0.9, 0.95), (0.95, 0.999), (0.0, 0.999), (0.95, 0.9), (0.8, 0.99)]
SCALES = (1e-25, 1e-19, 1e-12, 1e-8, 1e-6, 1e-2, 1.0, 1e8, 1e18)
WINDOWS = [(0, 1), (1, 2), (1, 40), (3, 4), (5, 8), (20, 50), (40, 41), (40, 140), (80, 200)]


def schedule(kind: str, steps: int) -> list[float]:
    t = np.arange(1, steps + 1)
    shapes = {
        "constant": np.full(steps, 1e-3),
        "cosine": 1e-3 * (1 + np.cos(np.pi * t / (steps + 1))) / 2,
        "warm-up": 1e-3 * np.minimum(1.0, t / 50),
        "cyclic": 1e-3 * np.abs(np.sin(t / 9)) + 1e-6,
    }
    return [float(lr) for lr in shapes[kind]]


def run(optimizer: Adam, gradients: np.ndarray, rates: list[float], steps: int) -> list[tuple]:
    """Return (w, m, v, max v) at every step from 0."""
    states = [(optimizer.w, optimizer.m, optimizer.v, optimizer.largest)]
    for s in range(steps):
        optimizer.step(gradients[:, s], rates[s])
        states.append((optimizer.w, optimizer.m, optimizer.v, optimizer.largest))
    return states


def judged(states: list[tuple], premises: AdamPremises, window: tuple[int, int]) -> dict:
    t0, t = window
    (w0, m0, v0, x0), (w1, m1, v1, x1) = states[t0], states[t]
    rates = premises.learning_rates[t0:t]
    window_premises = replace(premises, earlier_step=t0, step=t, learning_rates=rates)
    results = judge_pair(Pair(w0, w1, m0, v0, m1, v1), window_premises)
    results["loose"] = loose(w0, w1, window_premises)
    results["tight"] = tight(w0, w1, m0, v0, v1, window_premises)
    results["eps-aware"] = eps_aware(w0, w1, m0, v0, v1, window_premises)
    unknown = replace(window_premises, learning_rates=None, lr_max=max(rates))
    results["lr-max"] = judge_pair(Pair(w0, w1, m0, v0, m1, v1), unknown)["displacement"]
    if premises.amsgrad:
        results["amsgrad"] = amsgrad_maximum(x0, v1, x1, window_premises)
    return results


def starting_weights(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.choice([0.0, 1e-6, 1e-3, 0.1, 1.01, 100.0], count) * rng.choice([-1, 1], count)


#: How close some history must come to each bound in the dtype, or the bound is slack.
ATTAINED = {
    "float32": {"moment", "decay", "innovation", "displacement", "tight", "loose", "eps-aware"},
    "float64": {"moment", "decay", "innovation", "displacement", "tight", "loose", "strip"},
    "bfloat16": {"moment", "decay", "innovation"},
    "float16": {"moment", "decay", "innovation", "tight", "strip"},
}

CASES = [
    ("float32", False, 1e-8, 0.0, True, False, "constant"),
    ("float32", False, 1e-8, 0.1, True, False, "cosine"),
    ("float32", True, 1e-15, 0.01, True, False, "cyclic"),
    ("float32", False, 1e-6, 0.01, False, True, "warm-up"),
    ("bfloat16", False, 1e-8, 0.1, True, False, "cosine"),
    ("bfloat16", True, 1e-6, 0.0, True, True, "constant"),
    ("float16", False, 1e-4, 0.0, True, False, "constant"),
    ("float64", False, 1e-8, 0.01, True, False, "cosine"),
]


@pytest.mark.parametrize(("dtype", "flush", "eps", "decay", "decoupled", "amsgrad", "shape"), CASES)
def test_no_history_passes_a_bound(
    dtype: str, flush: bool, eps: float, decay: float, decoupled: bool, amsgrad: bool, shape: str
) -> None:
    steps = 200
    worst: dict[str, float] = defaultdict(float)
    for seed, (beta1, beta2) in enumerate(BETAS):
        rng = np.random.default_rng(seed)
        gradients = scaled(matrix(families(rng, steps, beta1, beta2)), SCALES)
        optimizer = Adam(
            starting_weights(rng, len(gradients)),
            beta1,
            beta2,
            eps,
            decay,
            decoupled,
            amsgrad,
            dtype,
            flush,
        )
        rates = schedule(shape, steps)
        states = run(optimizer, gradients, rates, steps)
        premises = AdamPremises(
            beta1,
            beta2,
            eps,
            weight_decay=decay,
            decoupled=decoupled,
            amsgrad=amsgrad,
            learning_rates=tuple(rates),
            state_dtype=dtype,
            weight_dtype=dtype,
        )
        for window in WINDOWS:
            for name, result in judged(states, premises, window).items():
                if result.ratio is not None:
                    worst[name] = max(worst[name], result.ratio)
                assert result.above == 0, (name, (beta1, beta2), window, result)
    assert all(worst[name] >= 0.95 for name in ATTAINED[dtype]), dict(worst)
