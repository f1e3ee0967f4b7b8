"""Every bound on where it is attained: a thousandth more of the movement is proved impossible."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from ckptools.compare.bounds.displacement import displacement, eps_aware, loose, moved, tight
from ckptools.compare.bounds.innovation import innovation
from ckptools.compare.bounds.pair import Pair
from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.relatives import lion
from ckptools.compare.bounds.replay import learning_rate, replay
from ckptools.compare.bounds.result import BoundResult
from ckptools.compare.bounds.strip import centre_and_radius, strip
from tests.builders.adam_simulator import DTYPES, Adam
from tests.builders.gradient_families import families, matrix, scaled

STEPS, LR = 120, 1e-3
#: Families whose second moments never underflow, so that the step's rate can be solved.
SEEN = (
    *("constant", "alternating", "square-wave", "ramp", "normal", "cauchy", "biased"),
    *("spike-on-noise", "log-normal", "random-walk", "bursts", "periodic-spikes", "jump-up"),
)
BETAS = [(0.9, 0.999), (0.9, 0.95), (0.8, 0.99)]
WINDOWS = [(0, 1), (0, 20), (1, 2), (3, 5), (20, 30), (40, 41), (20, 100), (0, 120)]
Arrays = tuple[np.ndarray, ...]


@cache
def history(betas: tuple[float, float], decay: float, eps: float) -> list[Arrays]:
    """Return (w, m, v) after every step of adversarial gradients, in float64."""
    rng = np.random.default_rng(1)
    rows = scaled(matrix(families(rng, STEPS, *betas)), (1e-9, 1e-3, 1.0, 1e6))
    start = rng.choice([0.0, 0.1, 3.0], len(rows))
    optimizer = Adam(start, *betas, eps, decay, dtype="float64")
    states = [(optimizer.w, optimizer.m, optimizer.v)]
    for column, lr in zip(rows.T, rates(STEPS), strict=True):
        optimizer.step(column, lr)
        states.append((optimizer.w, optimizer.m, optimizer.v))
    return states


def rates(steps: int) -> tuple[float, ...]:
    """Return a warm-up into a cosine."""
    t = np.arange(1, steps + 1)
    shape = np.minimum(1, t / 15) * (1 + np.cos(np.pi * t / (2 * steps))) / 2
    return tuple(float(lr) for lr in LR * shape)


JUDGES: dict[str, Callable[[Pair, AdamPremises], BoundResult]] = {
    "loose": lambda p, how: loose(p.w_a, p.w_b, how),
    "eps-aware": lambda p, how: eps_aware(p.w_a, p.w_b, p.m_a, p.v_a, p.v_b, how),
    "tight": lambda p, how: tight(p.w_a, p.w_b, p.m_a, p.v_a, p.v_b, how),
    "displacement": lambda p, how: displacement(p.w_a, p.w_b, p.m_a, p.v_a, p.v_b, how),
    "strip": lambda p, how: strip(p.w_a, p.w_b, p.m_a, p.v_a, p.m_b, p.v_b, how),
}


def one(pair: Pair, index: int) -> Pair:
    """Return the history of one element."""
    return Pair(*(getattr(pair, field.name)[[index]] for field in fields(pair)))


def off(pair: Pair, bound: str, premises: AdamPremises) -> float:
    """Return how far the weight lies from where the bound is centred, with its sign."""
    centre = np.zeros(1)
    if bound == "strip":
        centre, _ = centre_and_radius(pair.m_a, pair.v_a, pair.m_b, pair.v_b, premises)
    return float((moved(pair.w_a, pair.w_b, premises) + centre)[0])


@pytest.mark.parametrize(("decay", "eps"), [(0.0, 1e-8), (0.1, 1e-8), (0.01, 1e-6)])
@pytest.mark.parametrize("betas", BETAS)
def test_a_thousandth_more_is_proved(betas: tuple[float, float], decay: float, eps: float) -> None:
    states = history(betas, decay, eps)
    attained: dict[str, float] = defaultdict(float)
    for t0, t in WINDOWS:
        premises = AdamPremises(
            *betas, eps, t, t0, decay, learning_rates=rates(STEPS)[t0:t],
            state_dtype="float64", weight_dtype="float64",
        )  # fmt: skip
        (w0, m0, v0), (w1, m1, v1) = states[t0], states[t]
        pair = Pair(w0, w1, m0, v0, m1, v1)
        for bound, judge in JUDGES.items():
            result = judge(pair, premises)
            assert result.above == 0, (bound, (t0, t), result)
            if result.ratio is None or result.ratio < 0.9:
                continue
            attained[bound] = max(attained[bound], result.ratio)
            alone = one(pair, result.index)
            distance = off(alone, bound, premises)
            for share, fires in ((0.999, False), (1.001, True)):
                further = distance * (share / result.ratio - 1)
                if share < result.ratio:
                    continue
                pushed = replace(alone, w_b=alone.w_b + further)
                told = judge(pushed, premises)
                assert bool(told.above) == fires, (bound, (t0, t), share, told)
                assert told.proves == fires
    assert attained.keys() == JUDGES.keys(), attained
    assert min(attained.values()) > 0.97, attained


@pytest.mark.parametrize("betas", BETAS)
def test_a_thousandth_more_innovation_is_proved(betas: tuple[float, float]) -> None:
    states = history(betas, 0.0, 1e-8)
    for t0, t in [(0, 1), (1, 2), (3, 5), (20, 30), (40, 120)]:
        premises = AdamPremises(*betas, 1e-8, t, t0, state_dtype="float64")
        (_, m0, v0), (_, m1, v1) = states[t0], states[t]
        result = innovation(m0, v0, m1, v1, premises)
        assert result.above == 0
        assert result.ratio > 0.95, (t0, t, result)
        here = [result.index]
        kept = betas[0] ** (t - t0) * m0[here]
        for share in (0.999, 1.001):
            if share >= result.ratio:
                further = kept + (m1[here] - kept) * share / result.ratio
                told = innovation(m0[here], v0[here], further, v1[here], premises)
                assert bool(told.above) == (share > 1), (t0, t, share, told)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_replay_beyond_its_rounding_is_proved(dtype: str) -> None:
    rng = np.random.default_rng(2)
    found = families(rng, 60, 0.9, 0.999)
    rows = scaled(matrix({name: found[name] for name in SEEN}), (1e-9, 1e-3, 1.0, 1e9))
    sizes = [0.0, 1e-3, 0.3, 50.0] if dtype == "float32" else [0.0, 1e-6]  # bfloat16 rounds more
    optimizer = Adam(rng.choice(sizes, len(rows)), weight_decay=0.1, dtype=dtype)
    largest = 0.0
    for step, column in enumerate(rows.T, 1):
        before = optimizer.w
        optimizer.step(column, LR)
        premises = AdamPremises(
            step=step, earlier_step=step - 1, weight_decay=0.1, learning_rates=(LR,),
            state_dtype=dtype, weight_dtype=dtype,
        )  # fmt: skip
        arrays = before, optimizer.w, optimizer.m, optimizer.v
        w0, w1, m1, v1 = (values.astype(np.float64) for values in arrays)
        rate = learning_rate(w0, w1, m1, v1, premises)
        honest = replay(w0, w1, m1, v1, premises, rate)
        assert honest.above == 0, (step, honest)
        largest = max(largest, honest.ratio or 0.0)
        if step in (1, 2, 10, 59) and honest.ratio:
            far = w1.copy()
            place = int(np.argmax(np.abs(w1)))
            unit = 2.0 ** (-23 if dtype == "float32" else -7)
            far[place] += 12 * unit * max(abs(w0[place]), abs(w1[place]))
            told = replay(w0, far, m1, v1, premises, rate)
            assert told.above == 1
            assert told.index == place
    assert largest > (0.3 if dtype == "float32" else 0.15)


def lion_history(dtype: str, decay: float) -> list[np.ndarray]:
    """Return the weights after every step of Lion on adversarial gradients."""
    rng = np.random.default_rng(3)
    rows = scaled(matrix(families(rng, STEPS, 0.9, 0.99)), (1e-20, 1e-6, 1.0, 1e12))
    kind = DTYPES[dtype]
    w = rng.choice([0.0, 1e-3, 0.2, 5.0], len(rows)).astype(kind)
    m, states = np.zeros(len(rows), np.float32), [w]
    for column, lr in zip(rows.T.astype(np.float32), rates(STEPS), strict=True):
        shrunk = (w.astype(np.float32) * np.float32(1 - lr * decay)).astype(kind)
        sign = np.sign(np.float32(0.9) * m + np.float32(0.1) * column)
        w = (shrunk.astype(np.float32) - np.float32(lr) * sign).astype(kind)
        m = np.float32(0.99) * m + np.float32(0.01) * column
        states.append(w)
    return states


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lion_reaches_its_sum_of_rates_and_no_further(dtype: str, decay: float) -> None:
    states, largest = lion_history(dtype, decay), 0.0
    for t0, t in WINDOWS:
        premises = AdamPremises(
            step=t, earlier_step=t0, learning_rates=rates(STEPS)[t0:t], weight_decay=decay,
            state_dtype="float32", weight_dtype=dtype,
        )  # fmt: skip
        older, newer = (states[at].astype(np.float64) for at in (t0, t))
        result = lion(older, newer, premises)
        assert result.above == 0, ((t0, t), result)
        largest = max(largest, result.ratio)
        unknown = replace(premises, learning_rates=None, lr_max=max(rates(STEPS)[t0:t]))
        assert lion(older, newer, unknown).above == 0
        here = [result.index]
        distance = moved(older[here], newer[here], premises)
        further = newer[here] + distance * (1.001 / result.ratio - 1)
        slack = np.abs(further) * 2e-3 if dtype == "bfloat16" else 0.0
        told = lion(older[here], further + np.sign(distance) * slack, premises)
        assert told.above == 1, ((t0, t), told)
        assert told.proves
    assert largest > (0.999 if dtype == "float32" else 0.5)
