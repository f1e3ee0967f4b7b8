"""How well optimizer states find their names: one file, and two files 1, 10 and 100 steps apart.

    python benchmarks/naming.py [--seeds 1] [--swaps 20] [--large]

Trains small models of eleven kinds, writes their states as dozens of synthetic optimizers (splits
by decay, layer-wise rates, text order, no order, frozen blocks, empty states, adapters, experts,
adversarial pairs; lone swaps besides), and counts names by standing.  ``--large`` times one
optimizer of ten thousand parameters.  Exit code 1 when a name that is *sure* is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1]))
from ckptools.layouts.parameters.decide import decide
from ckptools.layouts.parameters.pair import decide_pair
from ckptools.layouts.parameters.problem import Problem
from ckptools.names.stacks import places
from tests.builders.optimizer_puzzles import (
    ArrayMoves,
    ArrayValues,
    Puzzle,
    Score,
    lone_swaps,
    parameters,
    puzzle,
    puzzles,
    split,
)
from tests.builders.small_models import KINDS, Snapshot, train, train_gan

STEPS = {"100 steps": 140, "10 steps": 230, "1 step": 239, "now": 240}
STANDINGS = [
    "sure right",
    "sure wrong",
    "by_order right",
    "by_order wrong",
    "ambiguous none",
    "unknown none",
]
Runs = dict[str, dict[str, Snapshot]]


def trained(seed: int) -> Runs:
    """Return snapshots by kind of model and by distance."""
    keep = tuple(STEPS.values())
    runs = {kind: train(kind, keep, seed=seed) for kind in KINDS}
    for kind in ("gpt", "encoder", "cnn", "mlp"):
        runs[f"{kind} under SGD"] = train(
            kind, keep, seed=seed, optimizer="SGD", lr=0.05, momentum=0.9, weight_decay=1e-3
        )
        runs[f"{kind} under Adam"] = train(
            kind, keep, seed=seed, optimizer="Adam", weight_decay=0.02
        )
    runs |= train_gan(keep, seed=seed)
    return {kind: dict(zip(STEPS, found, strict=True)) for kind, found in runs.items()}


def swapped(runs: Runs, count: int, rng: np.random.Generator) -> list[Puzzle]:
    """Return more optimizers with a few exchanged states each."""
    found = []
    for kind, run in runs.items():
        now = run["now"]
        names = parameters(now)
        for number in range(count):
            groups = [names] if number % 2 else split(names, lambda n, r=now: r.weights[n].ndim > 1)
            pairs = lone_swaps(now, names, rng)
            found.append(puzzle(f"{kind}: swaps {number}", now, groups, swaps=pairs))
    return found


def measured(runs: Runs, swaps: int, rng: np.random.Generator) -> dict[str, Counter[str]]:
    """Return counts by mode and kind of puzzle."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    everything = puzzles({kind: run["now"] for kind, run in runs.items()})
    for one in everything + swapped(runs, swaps, rng):
        kind = "exchanged" if one.swapped else "ordered" if one.ordered else "no order"
        past = runs[one.name.split(":")[0]]
        modes = {"one file": lambda p=one: decide(p.problem, p.places, p.values)}
        for distance in list(STEPS)[:-1]:
            moves = ArrayMoves(one, past[distance])
            modes[distance] = lambda p=one, m=moves: decide_pair(p.problem, p.places, m, p.values)
        for mode, ask in modes.items():
            score = Score.of(one, ask())
            found[f"{mode}, {kind}"].update(score.counts + Counter({"optimizers": 1}))
            if kind == "ordered" and score.right < 0.9:
                print(f"{100 * score.right:.0f} % right in {one.name}, {mode}")
            for truth, named in score.wrong_sure:
                print(f"WRONG AND SURE in {one.name}, {mode}: {truth} named {named}")
    return found


def large(layers: int = 624) -> None:
    """Time one optimizer of ten thousand parameters, split by decay, laws fulfilled."""
    rng = np.random.default_rng(0)
    width = 32
    shapes = {"wte.weight": (50, width), "wpe.weight": (20, width)}
    for block in range(layers):
        for name, shape in _block(width).items():
            shapes[f"blocks.{block}.{name}"] = shape
    shapes["head.weight"] = (50, width)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    first = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    for block in range(layers):
        for one, other in (("attn.v", "attn.o"), ("mlp.fc1", "mlp.fc2")):
            _balance(weights, first, f"blocks.{block}.{one}", f"blocks.{block}.{other}")
    names = list(shapes)
    flat = [n for n in names if len(shapes[n]) > 1] + [n for n in names if len(shapes[n]) == 1]
    cut = sum(len(shape) > 1 for shape in shapes.values())
    asked = Problem(
        tuple(names),
        tuple(shapes.values()),
        (tuple(range(cut)), tuple(range(cut, len(names)))),
        tuple(shapes[n] for n in flat),
    )
    located = places(names, shapes)
    states = [{"exp_avg": first[n], "exp_avg_sq": first[n] ** 2 + 1e-3} for n in flat]
    values = ArrayValues([weights[n] for n in names], states, [1] * len(flat))
    for label, held in (("headers", None), ("values", values)):
        start = time.perf_counter()
        answer = decide(asked, [located[n] for n in names], held)
        seconds = time.perf_counter() - start
        right = sum(
            c is not None and names[c] == n for c, n in zip(answer.candidates, flat, strict=True)
        )
        sure = answer.standings.count("sure")
        print(f"{len(names)} parameters, {label}: {seconds:.1f} s, {right} right, {sure} sure")


def _block(width: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"norm1.weight": (width,), "norm1.bias": (width,)}
    for name in ("attn.q", "attn.k", "attn.v", "attn.o"):
        found |= {f"{name}.weight": (width, width), f"{name}.bias": (width,)}
    found |= {"norm2.weight": (width,), "norm2.bias": (width,)}
    found |= {"mlp.fc1.weight": (2 * width, width), "mlp.fc1.bias": (2 * width,)}
    return found | {"mlp.fc2.weight": (width, 2 * width), "mlp.fc2.bias": (width,)}


def _balance(weights: dict, first: dict, one: str, other: str) -> None:
    """Move a reader's running mean so that its columns balance the writer's rows."""
    w, m = weights[f"{one}.weight"], first[f"{one}.weight"]
    rows = (w * m).sum(1) + weights[f"{one}.bias"] * first[f"{one}.bias"]
    w, m = weights[f"{other}.weight"], first[f"{other}.weight"]
    m += w * ((rows - (w * m).sum(0)) / (w * w).sum(0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.large:
        large()
        return 0
    total: dict[str, Counter[str]] = defaultdict(Counter)
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        for mode, counts in measured(trained(seed), options.swaps, rng).items():
            total[mode].update(counts)
    rows = []
    for mode, counts in total.items():
        states = sum(counts[standing] for standing in STANDINGS)
        shares = [f"{100 * counts[standing] / states:.1f}" for standing in STANDINGS]
        rows.append([mode, counts["optimizers"], states, counts["sure wrong"], *shares])
    heads = ["mode", "optimizers", "states", "sure wrong", *(f"{s} %" for s in STANDINGS)]
    print(tabulate(rows, heads, disable_numparse=True))
    return int(any(counts["sure wrong"] for counts in total.values()))


if __name__ == "__main__":
    sys.exit(main())
