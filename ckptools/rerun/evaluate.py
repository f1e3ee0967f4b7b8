"""One evaluation, the same whenever it is repeated."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from ckptools.errors import TaskError
from ckptools.rerun.task import Task


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed python, numpy and torch inside the block, and give back what was before."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def evaluate(task: Task, model: nn.Module, seed: int = 0) -> dict[str, float]:
    """Return the task's validation values in eval mode; TaskError without a ``loss``."""
    model.eval()
    with torch.no_grad(), seeded(seed):
        values = {name: float(value) for name, value in task.evaluate(model).items()}
    if "loss" not in values:
        raise TaskError(f"evaluate gives no loss, only {', '.join(values) or 'nothing'}")
    return values


def excess(value: float, reference: float) -> float:
    """Return by which part of it ``value`` lies above ``reference``; inf when only it is no number.

    0 when neither is finite.
    """
    if not math.isfinite(value):
        return math.inf if math.isfinite(reference) else 0.0
    if not math.isfinite(reference):
        return -math.inf
    return (value - reference) / max(abs(reference), 1e-12)
