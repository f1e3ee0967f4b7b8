"""How far a run has come, by everything in a file that counts; needs no numpy."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

from ckptools.types.checkpoint import Checkpoint, OptimizerState, RunState

#: Saved arguments are looked through this deep.
_DEPTH = 4


def steps_taken(optimizer: OptimizerState) -> int | None:
    """Return the largest step count of any parameter: the optimizer's own, if one never skips."""
    steps = [state.step for state in optimizer.states if state.step is not None]
    whole = [step for step in steps if math.isfinite(step) and abs(step) < 1 << 62]
    return int(max(whole)) if whole else None


def step_counts(checkpoint: Checkpoint) -> list[int]:
    """Return what the optimizers count, and their sum where there are several of them.

    Trainers count either the steps of one or, as Lightning does, of all together.
    """
    counts = [steps_taken(optimizer) for optimizer in checkpoint.optimizers]
    known = [count for count in counts if count]
    return known + ([sum(known)] if len(known) > 1 else [])


def multiple(value: float, count: float) -> int | None:
    """Return k of at least 2 where ``value`` is k times ``count`` within a fiftieth of it.

    So batches relate to steps when gradients are accumulated.  Beyond 25 every ratio is near a
    whole number: None, as for a count of 0.
    """
    ratio = value / count if count else math.inf
    whole = round(ratio) if ratio < 25 else 0
    return whole if whole >= 2 and abs(ratio - whole) <= 0.02 else None


def arguments(run: RunState) -> Iterator[tuple[str, Any]]:
    """Iterate over the saved arguments by dotted path, nested ones after their parents."""
    work: list[tuple[str, Any, int]] = [("", run.hyperparameters, 0)]
    for path, value, depth in work:
        if isinstance(value, dict) and depth < _DEPTH:
            start = f"{path}." if path else ""
            work.extend((f"{start}{key}", below, depth + 1) for key, below in value.items())
        elif path:
            yield path, value


def argument(run: RunState, names: Collection[str]) -> tuple[str, float] | None:
    """Return (path, value) of the first positive number saved under one of ``names``.

    Names are compared without case, with "-" as "_".
    """
    for path, value in arguments(run):
        name = path.rpartition(".")[2].lower().replace("-", "_")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name in names and number and math.isfinite(value) and value > 0:
            return path, float(value)
    return None
