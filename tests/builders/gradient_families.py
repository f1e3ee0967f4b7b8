"""Gradient histories that push a bound: one row a history, one column a step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def families(rng: np.random.Generator, steps: int, beta1: float, beta2: float) -> dict[str, Floats]:
    """Return unit-scale histories by name; scale them as you like."""
    t = np.arange(steps, dtype=np.float64)
    normal = rng.standard_normal
    half = steps // 2
    found: dict[str, Floats] = {
        "constant": np.ones(steps),
        "alternating": (-1.0) ** t,
        "square-wave": np.sign(np.sin(t / 7 + 0.1)),
        "ramp": (t + 1) / steps,
        "falling-ramp": (steps - t) / steps,
        "normal": normal(steps),
        "cauchy": rng.standard_cauchy(steps),
        "biased": normal(steps) + 1,
        "sparse-1%": normal(steps) * (rng.random(steps) < 0.01),
        "sparse-10%": normal(steps) * (rng.random(steps) < 0.1),
        "one-spike-early": np.where(t == min(3, steps - 1), 1.0, 0.0),
        "one-spike-late": np.where(t == steps - 2, 1.0, 0.0),
        "spike-on-noise": 1e-3 * normal(steps) + np.where(t == half, 1e3, 0.0),
        "zero": np.zeros(steps),
        "zero-before": np.where(t < half, 0.0, normal(steps)),
        "zero-after": np.where(t < half, normal(steps), 0.0),
        "jump-up": np.where(t < half, 1e-4, 1.0),
        "drop": np.where(t < half, 1.0, 1e-4),
        "jump-one-sign": np.where(t < half, 1e-6 * normal(steps), 1.0),
        "log-normal": np.exp(2 * normal(steps)) * rng.choice([-1.0, 1.0], steps),
        "random-walk": np.cumsum(normal(steps)) / np.sqrt(steps),
        "bursts": normal(steps) * np.where(np.sin(t / 20) > 0.9, 100.0, 0.1),
        "periodic-spikes": np.where(t % 37 == 0, 10.0, 0.1),
        "then-opposite": np.where(t < half, -1.0, 1.0),
    }
    for name, rate in _rates(beta1, beta2).items():
        exponent = np.clip(t * np.log(rate), -80, 80)
        exponent = exponent - exponent.max() if rate > 1 else exponent
        found[f"growth-{name}"] = np.exp(exponent)
        # the same growth again and again, so that a window may start anywhere
        period = np.exp(np.clip((t % 40) * np.log(rate), -80, 80))
        found[f"growth-{name}-repeated"] = period
        found[f"growth-{name}-alternating"] = np.exp(exponent) * (-1.0) ** t
    return found


def _rates(beta1: float, beta2: float) -> dict[str, float]:
    """Return growth rates a step: the moment bound's extremal one and its neighbours."""
    extremal = beta2 / beta1 if beta1 > 0 else 1e3
    return {
        "extremal": extremal,
        "root": np.sqrt(beta2),
        "beta1": beta1 if beta1 > 0 else 0.5,
        "slow": 1.01,
        "inverse": 1 / extremal,
        "double": 2.0,
    }


def matrix(found: dict[str, Floats]) -> Floats:
    """Return the histories as rows."""
    return np.stack(list(found.values()))


def scaled(rows: Floats, scales: tuple[float, ...]) -> Floats:
    """Return every history at every scale, rows varying fastest."""
    return np.concatenate([rows * scale for scale in scales])
