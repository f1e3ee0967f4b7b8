"""Healthy Adam histories against every bound: there must be no false proof.

    python benchmarks/false_proofs.py [--pairs 1e8] [--seed 0] [--threads 1] [--seconds 3600]

Draws configurations of torch's own Adam and AdamW (implementation, AMSGrad, betas, eps, weight
decay, schedule, precision, skipped steps, flushing of denormals), runs some fifty adversarial
gradient families at twelve scales through each, judges random windows (and one file) with all
bounds, and prints configurations, element-pairs, and per bound the largest ratio and the number of
elements above 1; how far it is goes to stderr every minute.  Exit code 1 when there is any false
proof.  With a limit of seconds it may stop before all pairs were judged, and says how many were.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from ckptools.compare.bounds.decay import amsgrad_maximum
from ckptools.compare.bounds.displacement import eps_aware, loose, tight
from ckptools.compare.bounds.pair import Pair, judge_pair
from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.result import BoundResult

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.builders.gradient_families import families, matrix

BETAS = [
    (0.9, 0.999),
    (0.9, 0.98),
    (0.9, 0.95),
    (0.95, 0.999),
    (0.8, 0.99),
    (0.0, 0.999),
    (0.9, 0.9),
    (0.99, 0.999),
    (0.95, 0.9),
    (0.9, 0.99999),
]
SCALES = [1e-25, 1e-21, 1e-18, 1e-14, 1e-10, 1e-8, 1e-5, 1e-3, 1.0, 1e4, 1e12, 1e18]
WEIGHTS = [0.0, 1e-6, 1e-3, 0.02, 0.3, 1.01, 10.0, 100.0]


@dataclass(frozen=True)
class Configuration:
    """One optimizer and how it is driven."""

    kind: str
    implementation: str
    amsgrad: bool
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    lr: float
    schedule: str
    dtype: str
    absent: float
    zeroed: float
    flush: bool
    steps: int
    master: str | None

    @property
    def decoupled(self) -> bool:
        return self.kind == "AdamW"


def draw(rng: np.random.Generator) -> Configuration:
    """Return a random configuration; a tenth in 16 bits, a tenth as 16-bit copies."""
    dtype = str(rng.choice(["float32"] * 16 + ["bfloat16"] * 2 + ["float64"] + ["float16"]))
    copy = str(rng.choice(["none"] * 9 + ["bfloat16", "float16"]))
    amsgrad = bool(rng.random() < 0.25)
    return Configuration(
        kind=str(rng.choice(["Adam", "AdamW"])),
        implementation=str(rng.choice(["single", "foreach", "fused"])),
        amsgrad=amsgrad,
        betas=BETAS[rng.integers(len(BETAS))],
        eps=float(rng.choice([1e-8, 1e-6, 1e-15])) if dtype != "float16" else 1e-4,
        weight_decay=float(rng.choice([0.0, 0.01, 0.1])),
        lr=float(10 ** rng.uniform(-7, -2)),
        schedule=str(rng.choice(["constant", "warm-up", "cosine", "cyclic", "random"])),
        dtype=dtype,
        absent=float(rng.choice([0.0, 0.0, 0.4])),
        zeroed=float(rng.choice([0.0, 0.0, 0.3])),
        flush=bool(rng.random() < 0.2),
        steps=int(rng.choice([60, 200, 200, 500, 500, 1500])),
        master=copy if copy != "none" and dtype == "float32" else None,
    )


def learning_rate(c: Configuration, call: int, rng: np.random.Generator) -> float:
    phase = (call + 1) / c.steps
    shapes = {
        "constant": 1.0,
        "warm-up": min(1.0, 5 * phase),
        "cosine": (1 + np.cos(np.pi * phase)) / 2,
        "cyclic": abs(np.sin(9 * phase)) + 1e-3,
        "random": 10 ** rng.uniform(-3, 0),
    }
    return float(c.lr * shapes[c.schedule])


@dataclass
class History:
    """States at every own step, and the learning rates that were used."""

    weights: list[Any] = field(default_factory=list)
    first: list[Any] = field(default_factory=list)
    second: list[Any] = field(default_factory=list)
    largest: list[Any] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def keep(self, parameter: torch.Tensor, state: dict[str, Any]) -> None:
        zero = torch.zeros_like(parameter)
        self.weights.append(parameter.detach().clone())
        self.first.append(state.get("exp_avg", zero).clone())
        self.second.append(state.get("exp_avg_sq", zero).clone())
        self.largest.append(state.get("max_exp_avg_sq", zero).clone())


def train(c: Configuration, rng: np.random.Generator) -> History:
    """Run one configuration over all families and scales, a tensor for all of them."""
    rows = matrix(families(rng, c.steps, *c.betas))
    usable = SCALES if c.dtype != "float16" else [1e-3, 0.01, 0.1, 1.0]
    rows = np.concatenate([rows * scale for scale in usable])
    dtype = getattr(torch, c.dtype)
    gradients = torch.tensor(rows.T.copy()).to(dtype)
    start = rng.choice(WEIGHTS, len(rows)) * rng.choice([-1, 1], len(rows))
    parameter = torch.nn.Parameter(torch.tensor(start).to(dtype))
    optimizer = getattr(torch.optim, c.kind)(
        [parameter],
        lr=c.lr,
        betas=c.betas,
        eps=c.eps,
        weight_decay=c.weight_decay,
        amsgrad=c.amsgrad,
        foreach=c.implementation == "foreach",
        fused=c.implementation == "fused",
    )
    history = History()
    history.keep(parameter, {})
    for call in range(c.steps):
        lr = learning_rate(c, call, rng)
        optimizer.param_groups[0]["lr"] = lr
        if rng.random() < c.absent:
            parameter.grad = None
            optimizer.step()
            continue
        parameter.grad = gradients[len(history.rates)].clone()
        if c.zeroed:
            parameter.grad *= float(rng.random() >= c.zeroed)
        optimizer.step()
        history.rates.append(lr)
        history.keep(parameter, optimizer.state[parameter])
    return history


def windows(last: int, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Return windows of all lengths, adjacent and early ones among them."""
    found = [(0, 1), (0, last), (1, 2), (1, min(40, last)), (last - 1, last)]
    for _ in range(count - len(found)):
        length = int(np.exp(rng.uniform(0, np.log(last))))
        start = int(rng.integers(0, last - length + 1))
        found.append((start, start + length))
    return found


def judge(c: Configuration, history: History, window: tuple[int, int]) -> dict[str, BoundResult]:
    """Return all results of one window, with the learning rates known and with their maximum."""
    t0, t = window
    arrays = [
        values[step].double().numpy()
        for values in (history.weights, history.first, history.second)
        for step in window
    ]
    w0, w1, m0, m1, v0, v1 = arrays
    if c.master:
        w0, w1 = (_copied(history.weights[step], c.master) for step in window)
    rates = tuple(history.rates[t0:t])
    shared: dict[str, Any] = {
        "eps": c.eps,
        "step": t,
        "earlier_step": t0,
        "weight_decay": c.weight_decay,
        "decoupled": c.decoupled,
        "amsgrad": c.amsgrad,
        "state_dtype": c.dtype,
        "weight_dtype": c.master or c.dtype,
        "master": c.master is not None,
    }
    known = AdamPremises(*c.betas, learning_rates=rates, **shared)
    bounded = AdamPremises(*c.betas, lr_max=max(rates), **shared)
    pair = Pair(w0, w1, m0, v0, m1, v1)
    results = judge_pair(pair, known)
    results["loose"] = loose(w0, w1, known)
    results["tight"] = tight(w0, w1, m0, v0, v1, known)
    results["eps-aware"] = eps_aware(w0, w1, m0, v0, v1, known)
    results["displacement, lr ≤ max"] = judge_pair(pair, bounded)["displacement"]
    if c.amsgrad:
        x0, x1 = (history.largest[step].double().numpy() for step in window)
        results["amsgrad"] = amsgrad_maximum(x0, v1, x1, known)
    return results


def _copied(weights: torch.Tensor, dtype: str) -> np.ndarray[Any, Any]:
    return weights.to(getattr(torch, dtype)).double().numpy()


@dataclass
class Tally:
    """Largest ratio and counts per bound and dtype."""

    largest: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    judged: Counter[tuple[str, str]] = field(default_factory=Counter)
    above: Counter[tuple[str, str]] = field(default_factory=Counter)
    where: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, c: Configuration, window: tuple[int, int], results: dict[str, Any]) -> None:
        label = f"{c.dtype} → {c.master}" if c.master else c.dtype
        for bound, result in results.items():
            key = (bound, label)
            self.judged[key] += result.judged
            self.above[key] += result.above
            if result.ratio is not None and result.ratio > self.largest[key]:
                self.largest[key] = result.ratio
                self.where[key] = f"{c.betas}, {window[0]}→{window[1]}"
            if result.above:
                print("FALSE PROOF", bound, window, result, c, file=sys.stderr)

    def table(self) -> str:
        rows = [
            (
                bound,
                label,
                self.judged[bound, label],
                f"{self.largest[bound, label]:.9f}",
                self.above[bound, label],
                self.where.get((bound, label), ""),
            )
            for bound, label in sorted(self.judged)
        ]
        heads = ("bound", "dtype", "elements judged", "largest ratio", "above 1", "attained at")
        return tabulate(rows, heads, disable_numparse=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=float, default=1e8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of wall time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(options.seed)
    tally, pairs, configurations, flushed = Tally(), 0, 0, 0
    start = told = time.perf_counter()
    while pairs < options.pairs and time.perf_counter() - start < options.seconds:
        c = draw(rng)
        torch.set_flush_denormal(c.flush)
        history = train(c, rng)
        configurations, flushed = configurations + 1, flushed + c.flush
        if len(history.rates) < 2:
            continue
        for window in windows(len(history.rates), rng, options.windows):
            tally.add(c, window, judge(c, history, window))
            pairs += history.weights[0].numel()
        torch.set_flush_denormal(False)
        if time.perf_counter() - told > 60:
            told = time.perf_counter()
            print(
                f"{configurations} configurations, {pairs:.3g} pairs, "
                f"{sum(tally.above.values())} false proofs, {time.process_time():.0f} s of CPU",
                file=sys.stderr,
                flush=True,
            )
    print(tally.table())
    false = sum(tally.above.values())
    print(
        f"\n{configurations} configurations ({flushed} flushing denormals), {pairs:.3g} "
        f"element-pairs, {false} false proofs, {time.perf_counter() - start:.0f} s"
    )
    return int(false > 0)


if __name__ == "__main__":
    sys.exit(main())
