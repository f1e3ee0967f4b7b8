"""How an arm's training is resumed: optimizer, scheduler and scaler, and their learning rates."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ckptools.errors import NotComparable
from ckptools.rerun.arms import Arm
from ckptools.rerun.evaluate import seeded
from ckptools.rerun.loading import SavedState, load_state, read_state
from ckptools.rerun.loss_weights import term_weights
from ckptools.rerun.machine import Machine
from ckptools.rerun.task import Task
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.wording import Wording, say

#: batches from which second moments are measured anew
_MEASURED = 4


def saved_state(task: Task, model: nn.Module, arm: Arm) -> SavedState | None:
    """Return the optimizer state that the arm starts with, None from scratch.

    ``task`` and ``model`` are those of the run that wrote the checkpoints.
    """
    source = arm.state or arm.start
    if source is None:
        return None
    optimizer = task.optimizer(model)
    read: dict[str, SavedState] = {}

    def of(checkpoint: Checkpoint) -> SavedState:
        if checkpoint.path not in read:
            read[checkpoint.path] = read_state(checkpoint, model, optimizer)
        return read[checkpoint.path]

    if arm.optimizer == "reset" and not source.optimizers:
        return None
    others = {
        name: None if one is None else of(one).slots.get(name) for name, one in arm.slots.items()
    }
    return of(source).having(others)


_Resumed = tuple[torch.optim.Optimizer, Any, torch.amp.GradScaler, tuple[str, ...]]


def resume(
    task: Task,
    model: nn.Module,
    arm: Arm,
    *,
    trained: nn.Module | None = None,
    saved: SavedState | None = None,
    seed: int = 0,
) -> _Resumed:
    """Build the optimizer, then the scheduler, then load both states, in this order.

    Without a saved scheduler state there is no scheduler: learning rates stay as saved.

    Parameters
    ----------
    trained: the arm's model, where it is not the common one.
    saved: what :func:`saved_state` gives, where it is known already.
    seed: of the batches from which second moments are measured.
    """
    own = arm.task or task
    trained = model if trained is None else trained
    saved = saved or saved_state(task, model, arm)
    optimizer = own.optimizer(trained)
    rates = _ratios(task, model, own, optimizer) if saved is not None else {}
    build = getattr(own, "scheduler", None)
    fresh = saved is None or arm.schedule == "fresh"
    scheduled = build is not None and (fresh or (saved is not None and bool(saved.scheduler)))
    scheduler = build(optimizer) if scheduled and build is not None else None
    machine: Machine = getattr(task, "machine", None) or Machine()
    scaler = machine.scaler()
    notes: tuple[str, ...] = ()
    if saved is not None:
        notes = _loaded(saved, trained, optimizer, scheduler, fresh=fresh)
        if scaler.is_enabled() and saved.scaler:
            scaler.load_state_dict(copy.deepcopy(saved.scaler))
    _rescale(optimizer, scheduler, rates)
    still = _still(scheduler, saved, arm.state or arm.start)
    if arm.optimizer == "reset":
        optimizer.state.clear()
    if arm.optimizer == "second-moments-reset":
        _measure_second(own, trained, optimizer, arm, seed)
    _declared_rates(optimizer, scheduler, arm)
    if still is not None:
        return optimizer, None, scaler, (*notes, still)
    return optimizer, scheduler, scaler, notes


def _still(
    scheduler: Any, saved: SavedState | None, checkpoint: Checkpoint | None
) -> Wording | None:
    """Return why the schedule does not move within a few steps; None where it does."""
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return say("the schedule waits for validation values: learning rates stay as they are")
    if scheduler is not None and saved and checkpoint and counts_epochs(saved, checkpoint):
        return say("the schedule counts epochs, and none ends here: learning rates stay as saved")
    return None


def counts_epochs(saved: SavedState, checkpoint: Checkpoint) -> bool:
    """Return whether the saved schedule was stepped once an epoch, and not once a step.

    Its counter is then that of the epochs, and far behind the steps of the optimizer.
    """
    count, run = (saved.scheduler or {}).get("last_epoch"), checkpoint.run
    if not isinstance(count, int) or (run.epoch is not None and abs(count - run.epoch) > 1):
        return False
    taken = [float(slots["step"]) for slots in saved.slots.values() if "step" in slots]
    steps = max(taken, default=run.step)
    if steps is None:
        return run.epoch is not None
    return steps >= 4 * max(count, 1)


def _loaded(
    saved: SavedState,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    *,
    fresh: bool,
) -> tuple[str, ...]:
    """Load the states; a fresh schedule keeps the learning rates that it has set itself."""
    rates = [group["lr"] for group in optimizer.param_groups]
    notes = load_state(saved, model, optimizer)
    if scheduler is None:
        return (*notes, say("no schedule was saved: learning rates stay as saved"))
    if fresh:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return notes
    try:
        # a copy: schedulers keep the lists that they load, and change them
        scheduler.load_state_dict(copy.deepcopy(saved.scheduler or {}))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise NotComparable(
            f"the saved schedule is not that of the task: {error}",
            next="make the task's scheduler as the run's was made, or schedule=fresh",
        ) from error
    return notes


def _ratios(
    task: Task, model: nn.Module, own: Task, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Return by which factors an arm's settings change the learning rates, by group ("" if none).

    Learning rates are loaded with the optimizer's state; what the settings ask for is kept by
    changing them by the factor between the two tasks' fresh optimizers.
    """
    if own is task:
        return {}
    common = task.optimizer(model).param_groups
    return {
        str(index): group["lr"] / common[index]["lr"]
        for index, group in enumerate(optimizer.param_groups)
        if index < len(common) and common[index]["lr"] and group["lr"] != common[index]["lr"]
    }


def _rescale(optimizer: torch.optim.Optimizer, scheduler: Any, ratios: Mapping[str, float]) -> None:
    groups = optimizer.param_groups
    if ratios:
        factors = [ratios.get(str(index), 1.0) for index in range(len(groups))]
        given = [group["lr"] * factor for group, factor in zip(groups, factors, strict=True)]
        _set_rates(optimizer, scheduler, given)


def _declared_rates(optimizer: torch.optim.Optimizer, scheduler: Any, arm: Arm) -> None:
    """Apply the learning rates that the arm declares: factors first, then numbers."""
    if not (arm.factors or arm.absolute):
        return
    groups = optimizer.param_groups
    names = [(str(group.get("name", index)), str(index), "") for index, group in enumerate(groups)]
    known = {name for words in names for name in words}
    unknown = sorted({*arm.factors, *arm.absolute} - known)
    if unknown:
        raise NotComparable(
            f"no parameter group {unknown[0]!r}",
            where=f"arm {arm.name}",
            next=", ".join(name for name, _, _ in names),
        )
    given = [group["lr"] for group in groups]
    bases = getattr(scheduler, "base_lrs", None) if arm.schedule == "fresh" else None
    for index, words in enumerate(names):
        given[index] *= _first_of(arm.factors, words, 1.0)
        number = _first_of(arm.absolute, words, None)
        if number is not None:
            # a schedule that begins anew reaches the number, one that goes on is there now
            given[index] = number * (given[index] / bases[index] if bases else 1.0)
    _set_rates(optimizer, scheduler, given)


def _first_of(values: Mapping[str, float], names: Sequence[str], default: Any) -> Any:
    """Return the value under the first of the names that has one."""
    return next((values[name] for name in names if name in values), default)


def _set_rates(optimizer: torch.optim.Optimizer, scheduler: Any, rates: Sequence[float]) -> None:
    """Set learning rates, and the scheduler's base rates in proportion so that they stay."""
    bases = getattr(scheduler, "base_lrs", None)
    for index, (group, rate) in enumerate(zip(optimizer.param_groups, rates, strict=True)):
        if bases and group["lr"]:
            bases[index] *= rate / group["lr"]
        group["lr"] = rate


def _measure_second(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, arm: Arm, seed: int
) -> None:
    """Replace second moments by mean squared gradients of a few batches, corrected as Adam's are.

    Where the first moment is larger than that, its square counts: zeros beside a first moment
    would be no healthy state either.
    """
    held = [(p, optimizer.state[p]) for p in model.parameters() if p in optimizer.state]
    held = [(p, slots) for p, slots in held if "exp_avg_sq" in slots]
    if not held:
        raise NotComparable("the optimizer keeps no second moments", where=f"arm {arm.name}")
    betas = {id(p): group["betas"] for group in optimizer.param_groups for p in group["params"]}
    sums = _squared_gradients(task, model, seed, arm)
    for parameter, slots in held:
        first, second = betas[id(parameter)]
        steps = float(slots.get("step", 1.0)) or 1.0
        mean = slots["exp_avg"] / (1.0 - first**steps)
        square = torch.maximum(sums[parameter], mean.square())
        slots["exp_avg_sq"].copy_(square * (1.0 - second**steps))


def _squared_gradients(
    task: Task, model: nn.Module, seed: int, arm: Arm
) -> dict[nn.Parameter, Tensor]:
    """Return the mean squared gradient of every parameter after clipping, over a few batches."""
    limit = float(getattr(task, "clip_norm", None) or math.inf)
    found = {p: torch.zeros_like(p) for p in model.parameters()}
    model.train()
    with seeded(seed):
        for batch in islice(task.batches(seed), _MEASURED):
            model.zero_grad()
            terms = task.loss(model, batch)
            total_loss(terms, task, arm).backward()
            nn.utils.clip_grad_norm_(model.parameters(), limit)
            for parameter, total in found.items():
                if parameter.grad is not None:
                    total += parameter.grad.square() / _MEASURED
    model.zero_grad()
    return found


def total_loss(terms: Mapping[str, Tensor], task: Task, arm: Arm) -> Tensor:
    """Return the sum of the terms as the arm weighs them; ``task`` is the one it trains on."""
    weights = task.weights()
    if arm.loss_weights is not None:
        weights = term_weights(arm.loss_weights, list(terms), weights)
    return torch.stack([weights.get(n, 1.0) * value for n, value in terms.items()]).sum()
