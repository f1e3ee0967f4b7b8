"""Last rung: a few steps of training, every arm on the same batches and random numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor, nn

from ckptools.errors import TaskError
from ckptools.rerun.arms import Arm
from ckptools.rerun.evaluate import evaluate, seeded
from ckptools.rerun.loading import load_optimizer, put
from ckptools.rerun.task import Task
from ckptools.types.verdict import ArmResult, Trial

STEPS = 12
SEEDS = (0, 1, 2, 3)


def run_arm(task: Task, model: nn.Module, arm: Arm, *, steps: int = STEPS) -> ArmResult:
    """Return the trials of an arm, one for each of :data:`SEEDS`.

    NotComparable when the optimizer state of its checkpoint cannot be loaded.
    """
    trials = tuple(trial(task, model, arm, seed, steps) for seed in SEEDS)
    return ArmResult(arm.name, arm.settings, trials)


def trial(task: Task, model: nn.Module, arm: Arm, seed: int, steps: int) -> Trial:
    """Train for ``steps`` and evaluate; a loss that is no number ends the training early."""
    put(model, arm.weights)
    optimizer, scheduler = resume(task, model, arm)
    norms: list[float] = []
    ratios: list[float] = []
    with seeded(seed):
        for batch in islice(task.batches(seed), steps):
            before = [p.detach().clone() for p in model.parameters()]
            norm = _step(task, model, optimizer, batch)
            if scheduler is not None:
                scheduler.step()
            norms.append(norm)
            ratios.append(_update_ratio(before, model))
            if not math.isfinite(norm):
                break
    return Trial(seed, len(norms), evaluate(task, model), tuple(norms), tuple(ratios))


def resume(task: Task, model: nn.Module, arm: Arm) -> tuple[torch.optim.Optimizer, Any]:
    """Build the optimizer, then the scheduler, then load both states, in this order.

    Without a saved scheduler state there is no scheduler: learning rates stay as saved.
    """
    optimizer = task.optimizer(model)
    build = getattr(task, "scheduler", None)
    saved = arm.start.run.scheduler
    scheduler = build(optimizer) if build is not None and saved else None
    load_optimizer(arm.start, model, optimizer)
    if scheduler is not None:
        scheduler.load_state_dict(saved)
    if arm.optimizer == "reset":
        optimizer.state.clear()
    if arm.rates is not None:
        _set_rates(optimizer, scheduler, arm.rates)
    return optimizer, scheduler


def _set_rates(optimizer: torch.optim.Optimizer, scheduler: Any, rates: Sequence[float]) -> None:
    """Set learning rates, and the scheduler's base rates in proportion so that they stay."""
    bases = getattr(scheduler, "base_lrs", None)
    for index, (group, rate) in enumerate(zip(optimizer.param_groups, rates, strict=True)):
        if bases and group["lr"]:
            bases[index] *= rate / group["lr"]
        group["lr"] = rate


def _step(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> float:
    """Take one step and return the gradient norm before clipping."""
    model.train()
    total = total_loss(task.loss(model, batch), task.weights())
    optimizer.zero_grad()
    total.backward()
    limit = float(getattr(task, "clip_norm", math.inf))
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), limit))
    if math.isfinite(norm):
        optimizer.step()
    return norm


def total_loss(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the weighted sum of the terms; TaskError when there are none."""
    if not terms:
        raise TaskError("loss gives no terms")
    return torch.stack([weights.get(n, 1.0) * value for n, value in terms.items()]).sum()


def _update_ratio(before: Sequence[Tensor], model: nn.Module) -> float:
    """Return the norm of the step over the norm of the parameters."""
    pairs = list(zip(before, model.parameters(), strict=True))
    moved = math.sqrt(sum(float((new.detach() - old).square().sum()) for old, new in pairs))
    length = math.sqrt(sum(float(old.square().sum()) for old in before))
    return moved / length if length else 0.0


def losses(arm: ArmResult) -> list[float]:
    """Return the loss after training, by seed."""
    return [trial.evaluate["loss"] for trial in arm.trials]


def paired(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Return mean and 95 % t interval of paired differences; no interval where one is infinite."""
    mean = sum(values) / len(values)
    if not math.isfinite(mean) or len(values) < 2:
        return mean, None
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = float(student.ppf(0.975, len(values) - 1)) * spread / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


def differences(one: Sequence[float], other: Sequence[float]) -> Iterator[float]:
    """Yield the log ratios of paired positive losses; what is no number is infinitely worse."""
    for a, b in zip(one, other, strict=True):
        if math.isfinite(a) and math.isfinite(b) and a > 0 and b > 0:
            yield math.log(a / b)
        elif math.isfinite(a) and math.isfinite(b):
            yield (a - b) / max(abs(b), 1e-12)
        else:
            yield (
                0.0
                if math.isfinite(a) == math.isfinite(b)
                else (math.inf if math.isfinite(b) else -math.inf)
            )
