"""The order of several checkpoints, and which of them belong to the series at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ckptools.types.checkpoint import Checkpoint

#: A file that shares fewer of the usual names is of another model.
_SHARED = 0.5
#: What orders files; the epoch comes first where steps contradict it.
_COUNTERS = {False: ("step", "epoch"), True: ("epoch",)}
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Series:
    """Checkpoints of one model in order.

    Attributes
    ----------
    ordered: oldest first.
    by: what ordered them: "step", "epoch", "name" or "given".
    foreign: files of another model.
    repeated: files whose counter another file has, too (a restart writes an epoch twice).
    restarted: files whose optimizer counts fewer steps than that of the epoch before.
    """

    ordered: tuple[Checkpoint, ...]
    by: str
    foreign: tuple[Checkpoint, ...] = ()
    repeated: tuple[Checkpoint, ...] = ()
    restarted: tuple[Checkpoint, ...] = ()


def series(checkpoints: Sequence[Checkpoint]) -> Series:
    """Return the checkpoints in order: by step, else epoch, else number in the name, else as given.

    The usual names are those that most files have; a file with fewer than half of them is foreign.
    """
    foreign = _foreign(checkpoints)
    members = [one for index, one in enumerate(checkpoints) if index not in foreign]
    by, ordered = _ordered(members)
    counts = [(one.run.step, one.run.epoch) for one in ordered]
    repeated = [
        one
        for index, one in enumerate(ordered)
        if index and by in ("step", "epoch") and counts[index] == counts[index - 1]
    ]
    strangers = tuple(checkpoints[index] for index in sorted(foreign))
    return Series(tuple(ordered), by, strangers, tuple(repeated), tuple(_restarted(ordered)))


def _restarted(ordered: Sequence[Checkpoint]) -> list[Checkpoint]:
    return [two for one, two in pairwise(ordered) if (one.run.step or 0) > (two.run.step or 0) > 0]


def _foreign(checkpoints: Sequence[Checkpoint]) -> set[int]:
    names = [{(t.name, t.ref.shape) for t in one.tensors()} for one in checkpoints]
    if len(names) < 2:
        return set()
    counts = Counter(name for held in names for name in held)
    most = max(counts.values(), default=0)
    usual = {name for name, number in counts.items() if number == most}
    return {i for i, held in enumerate(names) if len(held & usual) < _SHARED * len(usual)}


def _ordered(members: Sequence[Checkpoint]) -> tuple[str, list[Checkpoint]]:
    for word in _COUNTERS[_epochs_contradict(members)]:
        values = [getattr(one.run, word) for one in members]
        if all(value is not None for value in values) and len(set(values)) > 1:
            return word, [members[i] for i in _rising(values)]
    numbers = [[int(digits) for digits in _DIGITS.findall(Path(m.path).name)] for m in members]
    if all(numbers) and len({len(one) for one in numbers}) == 1:
        return "name", [members[i] for i in _rising(numbers)]
    return "given", list(members)


def _epochs_contradict(members: Sequence[Checkpoint]) -> bool:
    """Return whether the steps fall where the epochs rise: a restart counted anew."""
    counts = [(one.run.epoch, one.run.step) for one in members]
    known = [(epoch, step) for epoch, step in counts if epoch is not None and step is not None]
    rising = sorted(known)
    steps = [step for _, step in rising]
    return len(known) == len(counts) and steps != sorted(steps)


def _rising(values: Sequence[object]) -> list[int]:
    return sorted(range(len(values)), key=lambda i: values[i])  # type: ignore[arg-type,return-value]
