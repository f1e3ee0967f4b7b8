"""The smallest violation fires, and the true history beside it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ckptools.compare.bounds.decay import amsgrad_maximum, decay
from ckptools.compare.bounds.decay import blockwise as decay_blocks
from ckptools.compare.bounds.displacement import displacement, eps_aware, loose, tight
from ckptools.compare.bounds.innovation import innovation
from ckptools.compare.bounds.moment import blockwise, moment, moment_limit
from ckptools.compare.bounds.pair import Pair, judge_one, judge_pair, step_rate
from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.replay import replay
from ckptools.compare.bounds.strip import strip
from tests.builders.adam_simulator import Adam

START, COUNT, LR = 1000, 2000, 1e-3


def history(last: int, seed: int = 0, **options: object) -> list[tuple]:
    """Return (w, m, v, max v) at steps START … START + last of a run with noisy gradients."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(-7, 2, COUNT))
    drift = rng.normal(0, 0.3, COUNT)
    optimizer = Adam(rng.normal(0, 0.1, COUNT), **options)
    states = []
    for s in range(START + last):
        optimizer.step((rng.standard_normal(COUNT) + drift) * sizes, LR)
        if s + 1 >= START:
            states.append((optimizer.w, optimizer.m, optimizer.v, optimizer.largest))
    return states


STATES = history(100)


def premises(n: int, **options: object) -> AdamPremises:
    return AdamPremises(step=START + n, earlier_step=START, learning_rates=(LR,) * n, **options)


def share(result: object) -> float:
    return result.above / result.judged


def shuffled(values: np.ndarray, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).permutation(values)


def test_the_true_pairs_are_silent() -> None:
    for n in (1, 2, 10, 100):
        (w0, m0, v0, _), (w1, m1, v1, _) = STATES[0], STATES[n]
        results = judge_pair(Pair(w0, w1, m0, v0, m1, v1), premises(n))
        assert {"moment", "decay", "innovation", "displacement"} <= results.keys()
        assert ("replay" in results) == (n == 1)
        assert ("strip" in results) == (n <= 30)
        assert all(r.above == 0 and r.judged == COUNT for r in results.values()), results


FAULTS = {
    "m from A": (lambda m0, v0, m1, v1: (m0, v1), 0.98),
    "m negated": (lambda m0, v0, m1, v1: (-m1, v1), 0.99),
    "m zeroed": (lambda m0, v0, m1, v1: (0 * m1, v1), 0.99),
    "m shuffled": (lambda m0, v0, m1, v1: (shuffled(m1), v1), 0.98),
    "v shuffled": (lambda m0, v0, m1, v1: (m1, shuffled(v1)), 0.98),
    "v × 1.0001": (lambda m0, v0, m1, v1: (m1, v1 * np.float32(1.0001)), 0.99),
    "v × 0.9999": (lambda m0, v0, m1, v1: (m1, v1 * np.float32(0.9999)), 0.99),
    "v zeroed": (lambda m0, v0, m1, v1: (m1, 0 * v1), 0.99),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_step_apart_every_moment_fault_is_proved(fault: str) -> None:
    (_, m0, v0, _), (_, m1, v1, _) = STATES[0], STATES[1]
    damage, least = FAULTS[fault]
    assert share(innovation(m0, v0, *damage(m0, v0, m1, v1), premises(1))) >= least


@pytest.mark.parametrize(("n", "least"), [(10, 0.4), (100, 0.25)])
def test_further_apart_a_shuffled_second_moment_is_still_proved(n: int, least: float) -> None:
    (_, m0, v0, _), (_, m1, v1, _) = STATES[0], STATES[n]
    assert share(innovation(m0, v0, m1, shuffled(v1), premises(n))) >= least


@pytest.mark.parametrize("t", [1, 2, 10, 1000])
def test_moment_fires_one_part_in_a_million_beyond_its_limit(t: int) -> None:
    setting = AdamPremises(step=t)
    v = np.array([1e-30, 1e-8, 1.0, 1e10])
    limit = moment_limit(v, setting)
    assert moment(limit * (1 - 1e-9), v, setting).above == 0
    assert moment(limit * (1 + 1e-6), v, setting).above == 4
    assert moment(limit * (1 + 1e-6), v, setting).proves


def test_a_zeroed_second_moment_is_proved_by_one_file() -> None:
    _, m, v, _ = STATES[0]
    assert share(moment(m, np.zeros_like(v), premises(1))) > 0.99
    assert judge_one(m, v, premises(1))["moment"].above == 0
    assert moment(np.zeros(3), np.array([1.0, -1e-20, 0.0]), premises(1)).above == 1


def test_a_vanished_second_moment_of_tiny_gradients_is_not_a_violation() -> None:
    optimizer = Adam(np.zeros(1))
    for _ in range(100):
        optimizer.step(np.array([5e-22]), LR)
    assert optimizer.m[0] != 0
    assert optimizer.v[0] == 0
    assert moment(optimizer.m, optimizer.v, AdamPremises(step=100)).above == 0


def test_decay_fires_just_beyond_the_zero_gradient() -> None:
    v0 = np.array([1e-6, 1.0])
    for n in (1, 100, 5000):
        kept = 0.999**n * v0
        assert decay(v0, kept, premises(n)).above == 0
        assert decay(v0, kept * (1 - 4.1 * n * 2.0**-24), premises(n)).above == 2


def test_amsgrad_maximum_may_neither_fall_nor_jump() -> None:
    states = history(10, amsgrad=True)
    (_, _, _, x0), (_, _, v1, x1) = states[0], states[10]
    setting = premises(10, amsgrad=True)
    assert amsgrad_maximum(x0, v1, x1, setting).above == 0
    assert share(amsgrad_maximum(x0, v1, x0 * 0.999, setting)) == 1
    assert amsgrad_maximum(x0, v1, np.maximum(x0, v1) * 1.02, setting).above == COUNT


@pytest.mark.parametrize(("n", "noise"), [(1, 1e-3), (2, 0.05), (10, 8.0), (100, 60.0)])
def test_displacement_fires_on_noise(n: int, noise: float) -> None:
    (w0, m0, v0, _), (w1, _, v1, _) = STATES[0], STATES[n]
    update = np.sqrt(np.mean((STATES[1][0] - w0) ** 2))
    rng = np.random.default_rng(5)
    bad = w1 + noise * update * rng.standard_normal(COUNT).astype(np.float32)
    assert displacement(w0, bad, m0, v0, v1, premises(n)).proves
    if n == 1:
        assert tight(w0, bad, m0, v0, v1, premises(n)).proves


@pytest.mark.parametrize(("n", "noise"), [(1, 2e-5), (2, 1e-3), (3, 0.01), (10, 2.0)])
def test_strip_fires_on_less(n: int, noise: float) -> None:
    (w0, m0, v0, _), (w1, m1, v1, _) = STATES[0], STATES[n]
    update = np.sqrt(np.mean((STATES[1][0] - w0) ** 2))
    bad = w1 + noise * update * np.random.default_rng(5).standard_normal(COUNT)
    assert strip(w0, bad, m0, v0, m1, v1, premises(n)).proves
    assert strip(w0, w1, m0, v0, m1, v1, premises(n)).above == 0


def test_loose_fires_beyond_its_sum() -> None:
    (w0, *_), (w1, *_) = STATES[0], STATES[100]
    assert loose(w0, w1, premises(100)).above == 0
    assert loose(w0, w1 + np.float32(1.0), premises(100)).above == COUNT


def test_eps_aware_is_sharp_where_the_second_moment_vanishes() -> None:
    rng = np.random.default_rng(0)
    optimizer = Adam(rng.normal(0, 0.1, 50), weight_decay=0.0)
    states = []
    for _ in range(1010):
        optimizer.step(rng.standard_normal(50) * 1e-11, LR)
        states.append((optimizer.w, optimizer.m, optimizer.v))
    (w0, m0, v0), (w1, _, v1) = states[999], states[1009]
    assert eps_aware(w0, w1, m0, v0, v1, premises(10)).above == 0
    jump = w1 + np.float32(0.1 * 10 * LR)
    assert eps_aware(w0, jump, m0, v0, v1, premises(10)).above == 50
    assert displacement(w0, jump, m0, v0, v1, premises(10)).above == 50


def test_a_lost_learning_rate_peak_is_why_the_premise_exists() -> None:
    optimizer = Adam(np.zeros(1))
    rates = [1e-4] * 10 + [1e-2] * 5 + [1e-4] * 5
    states = [(optimizer.w, optimizer.m, optimizer.v)]
    for lr in rates:
        optimizer.step(np.ones(1), lr)
        states.append((optimizer.w, optimizer.m, optimizer.v))
    (w0, m0, v0), (w1, _, v1) = states[5], states[20]
    honest = AdamPremises(step=20, earlier_step=5, learning_rates=tuple(rates[5:]))
    assumed = replace(honest, learning_rates=None, lr_max=1e-4, failed=("learning-rate-assumed",))
    assert displacement(w0, w1, m0, v0, v1, honest).above == 0
    wrong = displacement(w0, w1, m0, v0, v1, assumed)
    assert wrong.above == 1
    assert not wrong.proves


def test_the_older_weight_scales_unknown_decay() -> None:
    optimizer = Adam(np.array([1.01]), weight_decay=0.1)
    start = optimizer.w
    for _ in range(1000):
        optimizer.step(np.zeros(1), 3.1e-7)
    setting = AdamPremises(step=1000, weight_decay=0.1, learning_rates=(3.1e-7,) * 1000)
    zero = np.zeros(1)
    for known in (setting, replace(setting, learning_rates=None, lr_max=3.1e-7)):
        assert displacement(start, optimizer.w, zero, zero, zero, known).above == 0
        assert loose(start, optimizer.w, known).above == 0


def test_replay_solves_the_rate_and_fires_on_a_hundred_thousandth_of_an_update() -> None:
    (w0, m0, v0, _), (w1, m1, v1, _) = STATES[0], STATES[1]
    pair = Pair(w0, w1, m0, v0, m1, v1)
    rate = step_rate([pair], premises(1))
    assert rate.value == pytest.approx(LR, rel=1e-4)
    assert rate.residual < 1e-4
    honest = replay(w0, w1, m1, v1, premises(1), rate)
    assert honest.above == 0
    update = np.sqrt(np.mean((w1 - w0) ** 2))
    bad = w1.copy()
    bad[7] += np.float32(1e-2 * update)
    result = replay(w0, bad, m1, v1, premises(1), rate)
    assert (result.above, result.index) == (1, 7)
    strangers = step_rate([Pair(w0, shuffled(w1), m0, v0, m1, v1)], premises(1))
    assert strangers.residual > 0.5
    assert replay(w0, shuffled(w1), m1, v1, premises(1), strangers).failed == ("learning-rate",)


def test_block_maxima_of_eight_bit_states() -> None:
    setting = premises(10, failed=("state-dtype",))
    assert decay_blocks(np.ones(4), np.full(4, 0.999**10), setting).ratio <= 1
    assert decay_blocks(np.ones(4), np.full(4, 0.98), setting).proves
    assert blockwise(np.full(2, 31.0), np.ones(2), setting).above == 0
    assert blockwise(np.full(2, 32.0), np.ones(2), setting).proves
    assert blockwise(np.full(2, 32.0), np.ones(2), setting.with_failed("betas")).proves is False
