"""Trials: a few steps of training, every arm on the same batches and random numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ckptools.errors import TaskError
from ckptools.rerun import ranks
from ckptools.rerun.arms import Arm, initial
from ckptools.rerun.batches import digest
from ckptools.rerun.evaluate import evaluate, seeded
from ckptools.rerun.loading import SavedState, model_shapes, put
from ckptools.rerun.machine import Machine
from ckptools.rerun.resume import resume, saved_state, total_loss
from ckptools.rerun.stopping import Stop, Until
from ckptools.rerun.task import Task, breaks_down
from ckptools.types.verdict import ArmResult, Trial
from ckptools.types.wording import say

STEPS = 12
SEEDS = (0, 1, 2, 3)


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


@dataclass
class _Course:
    """What one training gives, step by step."""

    norms: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    terms: list[dict[str, float]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def last_terms(self) -> dict[str, float]:
        """Return the mean of each term over the last quarter of the steps."""
        last = self.terms[-max(1, len(self.terms) // 4) :]
        return {n: sum(one[n] for one in last) / len(last) for n in last[0]} if last else {}

    def clipped(self, limit: float) -> float | None:
        """Return the part of the steps whose gradient was above a limit, None without one."""
        if not self.norms or limit == math.inf:
            return None
        return sum(norm > limit for norm in self.norms) / len(self.norms)


def trial(
    task: Task,
    model: nn.Module,
    arm: Arm,
    seed: int,
    steps: int,
    *,
    saved: SavedState | None = None,
    until: Until | None = None,
) -> Trial:
    """Train for ``steps`` and evaluate; a loss that is no number ends the training early.

    Parameters
    ----------
    task, model: the common ones; an arm with a task of its own gets a model of it where the
        shapes differ, and is judged by the common task where they do not.
    saved: what :func:`ckptools.rerun.resume.saved_state` gives, where it is known already.
    until: what settles the trial before all steps are taken.
    """
    begun = time.perf_counter()
    run = _Training(task, model, arm, seed, saved)
    with seeded(seed):
        course = run.train(ranks.share(run.task.batches(seed)), steps, until)
    machine: Machine = getattr(task, "machine", None) or Machine()
    return Trial(
        seed,
        len(course.norms),
        evaluate(run.judge, run.model),
        tuple(course.norms),
        tuple(course.ratios),
        loss=tuple(course.losses),
        terms=course.last_terms(),
        clipped=course.clipped(run.limit),
        batches=ranks.joined(digest(course.digests)),
        first_batch=ranks.joined(digest(course.digests[:1])),
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
        self.limit = float(getattr(self.task, "clip_norm", None) or math.inf)

    def train(self, batches: Iterator[Any], steps: int, until: Until | None) -> _Course:
        """Take the steps, until a loss is no number or nothing is left to be learnt from them."""
        course = _Course()
        stop = Stop(until) if until is not None else None
        for batch in islice(batches, steps):
            course.digests.append(digest([batch]))
            terms = self._terms(batch, course)
            if stop is not None and ranks.first_says(stop.after(course.losses[-1])):
                break
            before = [p.detach().clone() for p in self.model.parameters()]
            course.norms.append(self._updated(terms))
            course.ratios.append(_update_ratio(before, self.model))
            if not ranks.all_say(self._goes_on(course)):
                break
        return course

    def _terms(self, batch: Any, course: _Course) -> Mapping[str, Tensor]:
        """Return the loss terms of a batch, and write them down."""
        self.model.train()
        try:
            terms: Mapping[str, Tensor] = self.task.loss(self.model, batch)
        except TaskError:
            if not breaks_down(self.model, lambda: self.task.loss(self.model, batch)):
                raise
            terms = {"total": torch.tensor(math.nan)}
        values = {name: float(value.detach()) for name, value in terms.items()}
        own = self.common.weights()
        course.terms.append(values)
        course.losses.append(sum(own.get(n, 1.0) * value for n, value in values.items()))
        return terms

    def _goes_on(self, course: _Course) -> bool:
        """Return whether loss and gradient are numbers; a scaler passes over a gradient."""
        finite = math.isfinite(course.norms[-1]) or self.scaler.is_enabled()
        return finite and math.isfinite(course.losses[-1])

    def _updated(self, terms: Mapping[str, Tensor]) -> float:
        """Go one step down the gradient; return its norm before clipping."""
        total = total_loss(terms, self.task, self.arm)
        self.optimizer.zero_grad()
        if total.requires_grad:
            self.scaler.scale(total).backward()
        elif not ranks.together():
            return math.nan
        self.scaler.unscale_(self.optimizer)
        ranks.average(self.model)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.limit))
        if math.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self._move_schedule()
        return norm

    def _move_schedule(self) -> None:
        """Step the schedule; one that has come to its end stays there."""
        if self.scheduler is None:
            return
        try:
            self.scheduler.step()
        except (ValueError, IndexError, ZeroDivisionError) as error:
            self.scheduler = None
            reason = " ".join(str(error).split())
            note = say("the schedule is at its end, and stays there: {reason}", reason=reason)
            self.notes += (note,)


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


def _update_ratio(before: Sequence[Tensor], model: nn.Module) -> float:
    """Return the norm of the step over the norm of the parameters."""
    pairs = list(zip(before, model.parameters(), strict=True))
    moved = math.sqrt(sum(float((new.detach() - old).square().sum()) for old, new in pairs))
    length = math.sqrt(sum(float(old.square().sum()) for old in before))
    return moved / length if length else 0.0
