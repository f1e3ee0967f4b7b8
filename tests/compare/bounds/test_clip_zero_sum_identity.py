"""Statements about whole tensors: clip, zero sums, identity, schedules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ckptools.compare.bounds.clip import (
    ParameterSums,
    added_sums,
    clip,
    gradient_norm,
    parameter_sums,
    saturation,
)
from ckptools.compare.bounds.identity import digest, stale
from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.result import BoundResult
from ckptools.compare.bounds.schedule import largest_rate
from ckptools.compare.bounds.zero_sum import broken, zero_sum_residual
from tests.builders.gradient_families import families


def clipped_run(
    limit: float, steps: int, skip: float, seed: int = 0
) -> tuple[list[list[tuple]], AdamPremises]:
    """Return per step the (m, v, own step) of two parameters under a saturated clip."""
    rng = np.random.default_rng(seed)
    m, v, own = [np.zeros(30), np.zeros(10)], [np.zeros(30), np.zeros(10)], [0, 0]
    history = []
    for _ in range(steps):
        present = [True, rng.random() >= skip]
        g = [rng.standard_normal(size) * here for size, here in zip((30, 10), present, strict=True)]
        norm = np.sqrt(sum(float(x @ x) for x in g))
        for i in range(2):
            if present[i]:
                x = g[i] * limit / norm
                m[i], v[i] = 0.9 * m[i] + 0.1 * x, 0.999 * v[i] + 0.001 * x * x
                own[i] += 1
        history.append([(m[i].copy(), v[i].copy(), own[i]) for i in range(2)])
    return history, AdamPremises(step=steps)


def test_the_norm_of_a_saturated_clip_is_the_limit() -> None:
    history, premises = clipped_run(5.0, 200, 0.0)
    parts = [parameter_sums(m, v, t) for m, v, t in history[-1]]
    assert gradient_norm(parts, 0.999) == pytest.approx(5.0)
    assert clip(parts, 5.0, 200, premises).above == 0
    assert clip(parts, 4.999, 200, premises).proves
    assert saturation(5.0, 5.0) == 0
    assert saturation(2.5, 5.0) == 1
    assert saturation(4.99, 5.0) == pytest.approx(0.2, abs=0.01)


def test_skipped_steps_are_deflated() -> None:
    history, premises = clipped_run(5.0, 400, 0.95)
    parts = [parameter_sums(m, v, t) for m, v, t in history[-1]]
    assert gradient_norm(parts, 0.999) > 5.0
    assert clip(parts, 5.0, 400, premises).above == 0
    assert clip(parts, 5.0, 300, premises).failed == ("step",)


def test_what_was_added_between_two_files_is_clipped_too() -> None:
    history, _ = clipped_run(5.0, 220, 0.3)
    before, after = history[199], history[219]
    parts = [
        added_sums(m0, v0, m1, v1, AdamPremises(step=t1, earlier_step=t0))
        for (m0, v0, t0), (m1, v1, t1) in zip(before, after, strict=True)
    ]
    premises = AdamPremises(step=220, earlier_step=200)
    assert 0.9 < clip(parts, 5.0, 20, premises).ratio <= 1
    assert clip(parts, 4.0, 20, premises).proves


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95), (0.0, 0.99), (0.95, 0.9)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_no_clipped_history_passes_the_clip(betas: tuple[float, float], scale: float) -> None:
    """Every family of gradients, far below the clip and far above it; two files at any distance."""
    limit, steps, elements = 5.0, 120, 8
    rng = np.random.default_rng(4)
    largest = {"one": 0.0, "two": 0.0}
    for name, row in families(rng, steps, *betas).items():
        direction = rng.standard_normal(elements)
        m, v = np.zeros(elements), np.zeros(elements)
        states = [(m, v)]
        for size in row * scale:
            g = size * (direction + 0.3 * rng.standard_normal(elements))
            norm = float(np.linalg.norm(g))
            g = g * min(1.0, limit / norm) if norm > 0 else g
            m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
            states.append((m, v))
        for t0, t in [(0, 1), (0, 60), (0, 120), (10, 11), (10, 13), (40, 120)]:
            (m0, v0), (m1, v1) = states[t0], states[t]
            premises = AdamPremises(*betas, step=t, earlier_step=t0, state_dtype="float64")
            whole = clip([parameter_sums(m1, v1, t)], limit, t, premises)
            added = clip([added_sums(m0, v0, m1, v1, premises)], limit, t - t0, premises)
            assert whole.above == added.above == 0, (name, (t0, t), whole, added)
            largest["one"] = max(largest["one"], whole.ratio)
            largest["two"] = max(largest["two"], added.ratio)
            if whole.ratio > 0.5:
                less = limit * whole.ratio * 0.999
                assert clip([parameter_sums(m1, v1, t)], less, t, premises).proves
    if scale >= 1:
        assert min(largest.values()) > 0.999


@pytest.mark.parametrize("seed", range(4))
def test_saturation_bounds_the_steps_that_were_not_clipped(seed: int) -> None:
    """Markov's bound over the weights of the steps, and the histories that reach it."""
    rng = np.random.default_rng(seed)
    steps, beta2, limit, below = 300, 0.99, 2.0, 0.95
    weights = (1 - beta2) * beta2 ** np.arange(steps)[::-1] / (1 - beta2**steps)
    closest = 0.0
    for share in (0.0, 0.01, 0.1, 0.5, 1.0):
        for low in (0.0, 0.5, below - 1e-9):
            slow = rng.random(steps) < share
            norms = limit * np.where(slow, low, 1.0)
            mean = float(np.sqrt(weights @ norms**2))
            true = float(weights[norms < below * limit].sum())
            most = saturation(mean, limit, below)
            assert true <= most + 1e-9
            if low > below - 1e-6 and true > 0:
                closest = max(closest, true / most)
    assert closest > 0.999


def test_premises_of_the_clip() -> None:
    parts = [ParameterSums(1.0, 1.0, 5, 10)]
    coupled = AdamPremises(step=5, weight_decay=0.1, decoupled=False)
    assert clip(parts, 1e-3, 5, coupled).failed == ("decay-kind",)
    partial = clip(parts, 1e-3, 5, AdamPremises(step=5), all_parameters=False)
    assert partial.failed == ("group-edited",)
    assert clip([], 1.0, 5, AdamPremises(step=5)).ratio is None


def trained_head(
    rounds: int = 60,
    noise: float = 0.0,
    scale: float = 1.0,
    burst: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return both moments of a head after every step.

    ``noise`` makes gradients alternate, ``scale`` is the loss's, a ``burst`` multiplies every
    seventh gradient by ten thousand and drops every fifth.
    """
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 10)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, betas=betas)
    moments = []
    for number in range(rounds):
        size = 1e4 * (number % 7 == 3) + (number % 5 < 4) if burst else 1.0
        x, y = torch.randn(32, 16), torch.randint(0, 10, (32,))
        x = x + noise * (-1) ** number
        loss = torch.nn.functional.cross_entropy(head(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        (scale * size * loss).backward()
        optimizer.step()
        state = optimizer.state[head.weight]
        moments.append((state["exp_avg"].numpy().copy(), state["exp_avg_sq"].numpy().copy()))
    return moments


@pytest.mark.parametrize("noise", [0.0, 10.0, 1000.0])
def test_a_softmax_head_sums_to_zero_over_classes(noise: float) -> None:
    moments = trained_head(noise=noise)
    for step, (m, v) in enumerate(moments, 1):
        premises = AdamPremises(step=step, weight_decay=0.01)
        assert zero_sum_residual(m, v, premises) < 5e-7


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95), (0.0, 0.99)])
@pytest.mark.parametrize(("scale", "burst"), [(1e-6, False), (1.0, True), (1e6, True)])
def test_no_scale_nor_burst_breaks_a_zero_sum(
    betas: tuple[float, float], scale: float, burst: bool
) -> None:
    moments = trained_head(scale=scale, burst=burst, betas=betas)
    residuals = []
    for step, (m, v) in enumerate(moments, 1):
        premises = AdamPremises(*betas, step=step, weight_decay=0.01)
        residual = zero_sum_residual(m, v, premises)
        if residual is not None:
            residuals.append(residual)
            assert broken(residuals[0], residual, m.size, premises).above == 0, (step, residual)
    assert len(residuals) > 50
    assert max(residuals) < 5e-6


def test_what_breaks_a_zero_sum() -> None:
    moments = trained_head()
    (m_a, v_a), (after, v) = moments[40], moments[59]
    premises = AdamPremises(step=60, earlier_step=41, weight_decay=0.01)
    before = zero_sum_residual(m_a, v_a, AdamPremises(step=41))
    assert zero_sum_residual(after, v, premises, axis=1) > 0.01

    def judged(m: np.ndarray, how: AdamPremises = premises) -> BoundResult:
        return broken(before, zero_sum_residual(m, v, how), m.size, how)

    assert judged(after).above == 0
    assert judged(after).ratio < 0.1
    rng = np.random.default_rng(0)
    noisy = after + 2e-4 * np.sqrt(np.mean(after**2)) * rng.standard_normal(after.shape)
    assert judged(noisy).proves
    one = after.copy()
    one[3, 5] *= np.float32(1.01)
    assert judged(one).proves
    least = after.copy()
    size = np.sqrt(v.sum() / (1 - 0.999**60))
    least[3, 5] += np.float32(1.05e-5 * size)
    assert judged(least).proves
    least[3, 5] = after[3, 5] + np.float32(0.9e-5 * size)
    assert judged(least).above == 0
    assert broken(1e-3, 1.0, 5, premises).judged == 0
    coupled = AdamPremises(step=60, weight_decay=0.1, decoupled=False)
    assert judged(noisy, coupled).failed == ("decay-kind",)


def digests(values: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: digest([value]) for name, value in values.items()}


def test_a_stale_shard_names_its_source() -> None:
    rng = np.random.default_rng(0)
    names = ["a.w", "a.b", "frozen.w", "c.w"]
    epochs = [{name: rng.standard_normal(4) for name in names} for _ in range(4)]
    for epoch in epochs:
        epoch["frozen.w"] = epochs[0]["frozen.w"]
    epochs[3]["a.w"] = epochs[1]["a.w"]
    modules = {"a.w": "a", "a.b": "a", "frozen.w": "frozen", "c.w": "c"}
    series = [digests(epoch) for epoch in epochs]
    found = stale(series, modules)
    assert [(s.name, s.source, s.moved, s.still) for s in found] == [("a.w", 1, 1, 0)]
    assert stale(series[:3], modules) == []
    assert stale(series[:1], modules) == []


def test_a_shard_with_one_bit_off_is_no_copy() -> None:
    rng = np.random.default_rng(0)
    names = ["a.w", "a.b", "c.w"]
    epochs = [{name: rng.standard_normal(64) for name in names} for _ in range(4)]
    modules = {"a.w": "a", "a.b": "a", "c.w": "c"}
    epochs[3]["a.w"] = epochs[1]["a.w"].copy()
    assert [one.name for one in stale([digests(epoch) for epoch in epochs], modules)] == ["a.w"]
    epochs[3]["a.w"].view(np.int64)[17] ^= 1
    assert stale([digests(epoch) for epoch in epochs], modules) == []


def test_a_digest_is_of_values_and_dtype_not_of_chunks() -> None:
    values = np.arange(10, dtype=np.float32)
    assert digest([values]) == digest([values.copy()])
    assert digest([values]) != digest([values.view(np.int32)])
    assert digest([values]) != digest([-values])
    zero = np.zeros(2, np.float32)
    assert digest([zero]) != digest([-zero])


def scheduler_state(build: object) -> dict:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    scheduler = build(optimizer)
    optimizer.step()
    scheduler.step()
    return scheduler.state_dict()


@pytest.mark.parametrize(
    ("build", "known"),
    [
        (lambda o: torch.optim.lr_scheduler.StepLR(o, 10), True),
        (lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [10]), True),
        (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.99), True),
        (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 1.01), False),
        (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10), True),
        (lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 10), False),
        (lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, 100), False),
        (lambda o: torch.optim.lr_scheduler.LinearLR(o), False),
        (lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1.0), False),
        (
            lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, cycle_momentum=False),
            False,
        ),
    ],
)
def test_only_falling_schedules_prove_a_maximum(build: object, known: bool) -> None:
    state = scheduler_state(build)
    expected = 0.1 if known else None
    assert largest_rate(state, {"lr": 0.1}, {"lr": 0.05}) == expected


def test_schedules_with_unknown_keys_prove_nothing() -> None:
    state = scheduler_state(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [10]))
    assert largest_rate(state | {"warmup_iters": 500}, {"lr": 0.1}, {"lr": 0.1}) is None
    assert largest_rate(None, {"lr": 0.1}, {"lr": 0.1}) is None
    turned = scheduler_state(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10))
    assert largest_rate(turned | {"last_epoch": 11}, {"lr": 0.1}, {"lr": 0.1}) is None
