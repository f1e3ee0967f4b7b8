"""Whether only the weights of the loss terms have changed since the checkpoint was saved.

Two witnesses: a logged total that does not come back although every term does, and the settings
saved in the file, under which the task would weigh its terms otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ckptools.errors import TaskError
from ckptools.rerun.environment import LIMIT
from ckptools.rerun.measuring import log_ratio
from ckptools.rerun.task import Task
from ckptools.types.checkpoint import Checkpoint

#: (what, today, then)
Changed = tuple[str, float, float]


def changed_totals(
    task: Task, checkpoint: Checkpoint, values: Mapping[str, float]
) -> list[Changed]:
    """Return the losses that do not come back although what they are made of does.

    A total is made of terms and weights; where every logged term comes back, or for want of terms
    the loss itself, only weights are left.  Empty where nothing else was logged.
    """
    logged: Mapping[int, Mapping[str, float]] = getattr(task, "logged", None) or {}
    then = logged.get(checkpoint.run.epoch, {}) if checkpoint.run.epoch is not None else {}
    terms = [name for name in task.weights() if name in then and name in values]
    anchors = terms or [name for name in ("loss",) if name in then and name in values]
    if not anchors or any(_differs(values[name], then[name]) for name in anchors):
        return []
    totals = [name for name in values if name in then and _is_total(name) and name not in anchors]
    return [(n, values[n], then[n]) for n in totals if _differs(values[n], then[n])]


def _is_total(name: str) -> bool:
    return "loss" in name or "total" in name


def _differs(now: float, then: float) -> bool:
    return not abs(log_ratio(now, then)) <= LIMIT


def changed_weights(task: Task, checkpoint: Checkpoint) -> list[Changed]:
    """Return the terms that the task would weigh otherwise with the settings saved in the file.

    Only settings that the task was given and that the file holds with another value are put back,
    all at once; a task that cannot be made again so says nothing.
    """
    given: Mapping[str, Any] = getattr(task, "settings", None) or {}
    again = getattr(task, "again", None)
    saved = checkpoint.run.hyperparameters
    other = {n: saved[n] for n in given if n in saved and not _same(saved[n], given[n])}
    if not other or again is None or not isinstance(given, dict):
        return []
    try:
        then = again(other).weights()
    except TaskError:
        return []
    now = task.weights()
    names = [n for n in now if n in then and now[n] != then[n]]
    return [(name, now[name], then[name]) for name in names]


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(np.all(np.asarray(one, dtype=float) == np.asarray(other, dtype=float)))
    except (TypeError, ValueError):
        return bool(one == other)
