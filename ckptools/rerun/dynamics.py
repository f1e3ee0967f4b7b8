"""Last rung: a few steps of training, every arm on the same batches and random numbers."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor, nn

from ckptools.errors import NotComparable, TaskError
from ckptools.rerun import ranks
from ckptools.rerun.arms import Arm, initial, term_weights
from ckptools.rerun.batches import digest
from ckptools.rerun.evaluate import evaluate, seeded
from ckptools.rerun.loading import (
    SavedState,
    load_state,
    model_shapes,
    put,
    read_state,
)
from ckptools.rerun.machine import Machine
from ckptools.rerun.task import Task, breaks_down
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.verdict import ArmResult, Trial
from ckptools.types.wording import say

STEPS = 12
SEEDS = (0, 1, 2, 3)
#: batches from which second moments are measured anew
_MEASURED = 4


def run_arm(
    task: Task,
    model: nn.Module,
    arm: Arm,
    *,
    steps: int = STEPS,
    seeds: Sequence[int] = SEEDS,
) -> ArmResult:
    """Return the trials of an arm, one for each seed.

    NotComparable when the optimizer state of its checkpoint cannot be loaded.
    """
    saved = saved_state(task, model, arm)
    trials = tuple(trial(task, model, arm, seed, steps, saved=saved) for seed in seeds)
    return ArmResult(arm.name, arm.settings, trials)


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


@dataclass
class _Course:
    """What one training gives, step by step."""

    norms: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    terms: list[dict[str, float]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


def trial(
    task: Task,
    model: nn.Module,
    arm: Arm,
    seed: int,
    steps: int,
    *,
    saved: SavedState | None = None,
) -> Trial:
    """Train for ``steps`` and evaluate; a loss that is no number ends the training early.

    Parameters
    ----------
    task, model: the common ones; an arm with a task of its own gets a model of it where the
        shapes differ, and is judged by the common task where they do not.
    saved: what :func:`saved_state` gives, where it is known already.
    """
    begun = time.perf_counter()
    run = _Training(task, model, arm, seed, saved)
    course = _Course()
    with seeded(seed):
        for batch in islice(ranks.share(run.task.batches(seed)), steps):
            course.digests.append(digest([batch]))
            if not run.step(batch, course):
                break
    limit = float(getattr(run.task, "clip_norm", None) or math.inf)
    clipped = sum(norm > limit for norm in course.norms)
    last = course.terms[-max(1, len(course.terms) // 4) :]
    machine: Machine = getattr(task, "machine", None) or Machine()
    return Trial(
        seed,
        len(course.norms),
        evaluate(run.judge, run.model),
        tuple(course.norms),
        tuple(course.ratios),
        loss=tuple(course.losses),
        terms={n: sum(one[n] for one in last) / len(last) for n in last[0]} if last else {},
        clipped=clipped / len(course.norms) if course.norms and limit < math.inf else None,
        batches=ranks.joined(digest(course.digests)),
        seconds=time.perf_counter() - begun,
        machine=machine.describe(),
        notes=(*arm.notes, *run.notes),
    )


class _Training:
    """One arm's training: model, optimizer and schedule as a trainer resumes them."""

    def __init__(
        self, task: Task, model: nn.Module, arm: Arm, seed: int, saved: SavedState | None
    ) -> None:
        self.common = task
        self.task = arm.task or task
        self.arm = arm
        self.model, self.notes = _started(task, model, arm, seed)
        same = model_shapes(self.model) == model_shapes(model)
        self.judge = task if same else self.task
        self.optimizer, self.scheduler, scaler, notes = resume(
            task, model, arm, trained=self.model, saved=saved, seed=seed
        )
        self.scaler: torch.amp.GradScaler = scaler
        self.notes += notes
        self._limit = float(getattr(self.task, "clip_norm", None) or math.inf)

    def step(self, batch: Any, course: _Course) -> bool:
        """Take one step; return whether training can go on."""
        before = [p.detach().clone() for p in self.model.parameters()]
        self.model.train()
        try:
            terms = self.task.loss(self.model, batch)
        except TaskError:
            if not breaks_down(self.model, lambda: self.task.loss(self.model, batch)):
                raise
            terms = {"total": torch.tensor(math.nan)}
        values = {name: float(value.detach()) for name, value in terms.items()}
        own = self.common.weights()
        course.terms.append(values)
        course.losses.append(sum(own.get(n, 1.0) * value for n, value in values.items()))
        norm = self._updated(terms)
        course.norms.append(norm)
        course.ratios.append(_update_ratio(before, self.model))
        return math.isfinite(course.losses[-1]) and (
            math.isfinite(norm) or self.scaler.is_enabled()
        )

    def _updated(self, terms: Mapping[str, Tensor]) -> float:
        """Go one step down the gradient; return its norm before clipping."""
        total = total_loss(terms, self._weights(list(terms)))
        self.optimizer.zero_grad()
        if not total.requires_grad:
            return math.nan
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        ranks.average(self.model)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self._limit))
        if math.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.scheduler is not None:
                self.scheduler.step()
        return norm

    def _weights(self, terms: Sequence[str]) -> Mapping[str, float]:
        own = self.task.weights()
        if self.arm.loss_weights is None:
            return own
        return term_weights(self.arm.loss_weights, terms, own)


def _started(
    task: Task, model: nn.Module, arm: Arm, seed: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the model with the arm's weights in it, and what of them did not fit."""
    trained = model
    if arm.task is not None:
        with seeded(seed):
            own = arm.task.build()
        if model_shapes(own) != model_shapes(model):
            trained = own
    if arm.start is None:
        put(trained, initial(arm.task or task, seed))
        return trained, ()
    shapes = model_shapes(trained)
    fits = {n: v for n, v in arm.weights.items() if shapes.get(n) == tuple(v.shape)}
    put(trained, fits)
    if arm.fresh:
        new = initial(arm.task or task, seed)
        put(trained, {name: new[name] for name in arm.fresh})
    left, made = len(arm.weights) - len(fits), len(shapes) - len(fits)
    notes = (
        [say("{left} tensors of the checkpoint have no place in the model", left=left)]
        if left
        else []
    )
    if trained is not model and made:
        notes.append(say("{made} tensors of the model are as the task builds them", made=made))
    return trained, tuple(notes)


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
    if arm.optimizer == "reset":
        optimizer.state.clear()
    if arm.optimizer == "second-moments-reset":
        _measure_second(own, trained, optimizer, arm, seed)
    _declared_rates(optimizer, scheduler, arm)
    return optimizer, scheduler, scaler, notes


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
    groups = optimizer.param_groups
    names = [str(group.get("name", index)) for index, group in enumerate(groups)]
    unknown = sorted({*arm.factors, *arm.absolute} - {"", *names})
    if unknown:
        raise NotComparable(
            f"no parameter group {unknown[0]!r}", where=f"arm {arm.name}", next=", ".join(names)
        )
    given = list(arm.rates) if arm.rates is not None else [group["lr"] for group in groups]
    bases = getattr(scheduler, "base_lrs", None) if arm.schedule == "fresh" else None
    if arm.factors or arm.absolute or arm.rates is not None:
        for index, name in enumerate(names):
            given[index] *= arm.factors.get(name, arm.factors.get("", 1.0))
            number = arm.absolute.get(name, arm.absolute.get(""))
            if number is not None:
                # a schedule that begins anew reaches the number, one that goes on is there now
                given[index] = number * (given[index] / bases[index] if bases else 1.0)
        _set_rates(optimizer, scheduler, given)


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
            total_loss(terms, task.weights()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), limit)
            for parameter, total in found.items():
                if parameter.grad is not None:
                    total += parameter.grad.square() / _MEASURED
    model.zero_grad()
    return found


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


def paired(
    values: Sequence[float], comparisons: int = 1
) -> tuple[float, tuple[float, float] | None]:
    """Return mean and t interval of paired differences; no interval where one is infinite.

    Of several ``comparisons`` with one reference all intervals together hold with 95 %: each gets
    its share of the error (Bonferroni).
    """
    mean = sum(values) / len(values)
    if not math.isfinite(mean) or len(values) < 2:
        return mean, None
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    share = 1 - 0.025 / max(comparisons, 1)
    half = float(student.ppf(share, len(values) - 1)) * spread / math.sqrt(len(values))
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
