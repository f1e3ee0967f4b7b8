"""Optimizer states whose names are known to us alone: files and groupings of many kinds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.layouts.parameters.decide import Answer
from ckptools.layouts.parameters.directions import Direction, direction
from ckptools.layouts.parameters.problem import Problem
from ckptools.names.stacks import Place, places
from tests.builders.small_models import Snapshot

Groups = list[list[str]]


@dataclass(frozen=True)
class Puzzle:
    """One optimizer to be named: the problem, its numbers, and the truth by slot."""

    name: str
    problem: Problem
    places: list[Place]
    values: ArrayValues
    truth: list[str]
    file: list[str]
    ordered: bool = True
    swapped: bool = False


@dataclass(frozen=True)
class ArrayValues:
    """Weights by candidate and states by slot, in memory."""

    weights: list[NDArray[Any]]
    states: list[dict[str, NDArray[Any]] | None]
    steps: list[int]
    coupled: float = 0.0

    def weight(self, candidate: int) -> NDArray[Any] | None:
        return self.weights[candidate]

    def first(self, slot: int) -> NDArray[Any] | None:
        state = self.states[slot] or {}
        return state.get("exp_avg", state.get("momentum_buffer"))

    def second(self, slot: int) -> NDArray[Any] | None:
        return (self.states[slot] or {}).get("exp_avg_sq")

    def decay(self, slot: int) -> float:
        return self.coupled

    def step(self, slot: int) -> float | None:
        return self.steps[slot]


class ArrayMoves:
    """What moved between two snapshots of the run behind a puzzle."""

    def __init__(self, asked: Puzzle, older: Snapshot) -> None:
        self._asked = asked
        self._past = [older.weights[name] for name in asked.file]
        self._settings = older.settings

    def moved(self, candidate: int, picked: NDArray[np.int64]) -> NDArray[np.float64]:
        new = self._asked.values.weights[candidate].reshape(-1)[picked].astype(np.float64)
        return new - self.older(candidate, picked)

    def older(self, candidate: int, picked: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._past[candidate].reshape(-1)[picked].astype(np.float64)

    def direction(self, slot: int, picked: NDArray[np.int64]) -> Direction | None:
        state = self._asked.values.states[slot]
        if state is None:
            return None
        held = {name: values.reshape(-1)[picked] for name, values in state.items()}
        return direction(held, None, self._settings, self._asked.values.steps[slot])

    def group(self, slot: int) -> int:
        return 0


@dataclass
class Score:
    """How an answer fared: counts by standing and by right, wrong or none."""

    counts: Counter[str]
    wrong_sure: list[tuple[str, str]]

    @classmethod
    def of(cls, asked: Puzzle, answer: Answer) -> Score:
        counts: Counter[str] = Counter()
        wrong = []
        rows = zip(answer.candidates, answer.standings, asked.truth, strict=True)
        for candidate, standing, truth in rows:
            named = None if candidate is None else asked.problem.names[candidate]
            verdict = "none" if named is None else "right" if named == truth else "wrong"
            counts[f"{standing} {verdict}"] += 1
            if standing == "sure" and verdict == "wrong":
                wrong.append((truth, str(named)))
        return cls(counts, wrong)

    @property
    def right(self) -> float:
        """The share that has its right name."""
        total = sum(self.counts.values())
        return (self.counts["sure right"] + self.counts["by_order right"]) / total


def puzzle(
    name: str,
    run: Snapshot,
    groups: Groups,
    *,
    file: Iterable[str] | None = None,
    renamed: Callable[[str], str] = lambda name: name,
    stateless: Iterable[str] = (),
    swaps: Iterable[tuple[str, str]] = (),
    ordered: bool = True,
) -> Puzzle:
    """Return a puzzle from a snapshot.

    Parameters
    ----------
    groups: parameter names by group, in index order.
    file: names in the file's order (buffers excluded); that of the model by default.
    renamed: how the file spells a name.
    stateless: parameters whose state is empty.
    swaps: pairs of parameters whose states are exchanged.
    ordered: whether the groups follow any order at all.
    """
    listed = list(file) if file is not None else [n for n in run.weights if n not in run.buffers]
    listed = [n for n in listed if n not in tied(run)]
    names = [renamed(n) for n in listed]
    shapes = [run.weights[n].shape for n in listed]
    flat = [n for group in groups for n in group]
    holder = dict(zip(flat, flat, strict=True))
    for one, other in swaps:
        holder[one], holder[other] = holder[other], holder[one]
    empty = set(stateless)
    states = [None if n in empty else run.states.get(holder[n]) for n in flat]
    bounds = np.cumsum([0, *map(len, groups)])
    made = Problem(
        names=tuple(names),
        shapes=tuple(shapes),
        groups=tuple(tuple(range(a, b)) for a, b in pairwise(bounds) if b > a),
        slots=tuple(
            None if s is None else run.weights[n].shape for n, s in zip(flat, states, strict=True)
        ),
    )
    located = places(names, dict(zip(names, shapes, strict=True)))
    values = ArrayValues(
        [run.weights[n] for n in listed],
        states,
        [run.steps.get(n, 0) for n in flat],
        coupled(run.settings),
    )
    return Puzzle(
        name,
        made,
        [located[n] for n in names],
        values,
        [renamed(holder[n]) for n in flat],
        listed,
        ordered,
        bool(tuple(swaps)),
    )


def coupled(settings: dict[str, Any]) -> float:
    """Return what a running mean of gradients holds of the weight."""
    if settings.get("decoupled_weight_decay") is True:
        return 0.0
    return float(settings.get("weight_decay", 0.0) / (1 - settings.get("momentum", 0.0)))


def parameters(run: Snapshot) -> list[str]:
    """Return the trained parameters in the model's order; tied weights once."""
    return [name for name in run.weights if name in run.states]


def tied(run: Snapshot) -> set[str]:
    """Return the names that only repeat an earlier tensor."""
    names = list(run.weights)
    return {
        other
        for i, name in enumerate(names)
        for other in names[i + 1 :]
        if other not in run.states
        and run.weights[other].size > 1
        and np.array_equal(run.weights[name], run.weights[other])
        and "embed" not in other
        and name in run.states
    }


def is_norm(name: str) -> bool:
    return re.search(r"norm|bn|stem\.1", name) is not None


def split(names: list[str], *tests: Callable[[str], bool]) -> Groups:
    """Return one group for the names that pass each test first, and one for the rest."""
    groups: Groups = [[] for _ in range(len(tests) + 1)]
    for name in names:
        groups[next((i for i, test in enumerate(tests) if test(name)), len(tests))].append(name)
    return [group for group in groups if group]


def by_first_sight(names: list[str], key: Callable[[str], object]) -> Groups:
    """Return groups by key, in the order in which keys appear."""
    groups: dict[object, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return list(groups.values())


def block_of(name: str) -> object:
    found = re.search(r"(?:blocks|layers|stages)\.(\d+)", name)
    return int(found[1]) if found else name.split(".")[0]


def far_apart(name: str) -> str:
    """Spell blocks 2 and 3 as 10 and 11, so that text sorts them before 2."""
    return re.sub(r"(blocks|layers|stages)\.(\d)", lambda m: f"{m[1]}.{_FAR[m[2]]}", name)


_FAR = {"0": "0", "1": "2", "2": "10", "3": "11"}


def puzzles(runs: dict[str, Snapshot]) -> list[Puzzle]:
    """Return every puzzle that the runs allow."""
    found: list[Puzzle] = []
    rng = np.random.default_rng(0)
    for kind, run in runs.items():
        found += _of_one_run(kind, run, rng)
    return found


def _of_one_run(kind: str, run: Snapshot, rng: np.random.Generator) -> list[Puzzle]:
    names = parameters(run)
    matrix = {n: run.weights[n].ndim >= 2 for n in run.weights}
    text = sorted((n for n in run.weights if n not in run.buffers), key=far_apart)

    def decay(n: str) -> bool:
        return matrix[n]

    def make(label: str, groups: Groups, **options: Any) -> Puzzle:
        return puzzle(f"{kind}: {label}", run, groups, **options)

    shuffled = [names[i] for i in rng.permutation(len(names))]
    made = [
        make("one group", [names]),
        make("decay by dimensions", split(names, decay)),
        make("no decay for norms and biases", split(
            names, lambda n: not is_norm(n) and not n.endswith("bias"))),
        make("no decay first", split(names, lambda n: not decay(n))),
        make("a group each", [[n] for n in names]),
        make("text file", [names], file=text, renamed=far_apart),
        make("text file, decay", split(names, decay), file=text, renamed=far_apart),
        make("set order", [shuffled], ordered=False),
        make("reversed", [names[::-1]]),
    ]  # fmt: skip
    if kind.split(" ")[0] in ("gpt", "relu-gpt", "llama", "encoder", "moe", "cnn", "tied-gpt"):
        layered = by_first_sight(names, lambda n: (block_of(n), decay(n)))
        outer = by_first_sight(names, lambda n: n.split(".")[0])
        blocks = by_first_sight(names, block_of)
        made += [
            make("layer-wise rates", layered),
            make("layers, last first", blocks[::-1]),
            make("two rates", split(names, lambda n: "head" in n or "classifier" in n)),
            make("a group per module", outer),
            make("first blocks frozen", [[n for n in names if block_of(n) not in (0, 1)]]),
            make(
                "first blocks frozen, decay",
                split([n for n in names if block_of(n) not in (0, 1)], decay),
            ),
            make("middle blocks alone", [[n for n in names if block_of(n) in (1, 2)]]),
            make("last block frozen", [[n for n in names if block_of(n) != 3]]),
            make("some empty", [names], stateless=names[3:6] + names[-2:]),
            make("blocks reversed", [_blocks_reversed(names)]),
            make("lone swaps", [names], swaps=lone_swaps(run, names, rng)),
            make("lone swaps, decay", split(names, decay), swaps=lone_swaps(run, names, rng)),
        ]
    if kind == "gpt":
        made.append(
            make(
                "embeddings without decay",
                split(names, lambda n: matrix[n] and not n.startswith("w")),
            )
        )
    if kind == "lora":
        made.append(
            make("adapter file", [names], file=sorted(names, key=far_apart), renamed=far_apart)
        )
        made.append(make("A and B", split(names, lambda n: "lora_A" in n)))
    if kind == "moe":
        made.append(make("experts apart", split(names, lambda n: "expert" in n)))
    return made


def _blocks_reversed(names: list[str]) -> list[str]:
    runs: dict[object, list[str]] = {}
    for name in names:
        runs.setdefault(block_of(name), []).append(name)
    keys = list(runs)
    numbers = iter(sorted((k for k in keys if isinstance(k, int)), reverse=True))
    order = [next(numbers) if isinstance(k, int) else k for k in keys]
    return [name for key in order for name in runs[key]]


def lone_swaps(run: Snapshot, names: list[str], rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return a few pairs of same-shaped parameters."""
    free = [names[i] for i in rng.permutation(len(names))]
    pairs: list[tuple[str, str]] = []
    while free and len(pairs) < 3:
        one = free.pop()
        other = next((n for n in free if run.weights[n].shape == run.weights[one].shape), None)
        if other is not None:
            free.remove(other)
            pairs.append((one, other))
    return pairs
