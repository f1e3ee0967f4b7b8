"""Losses of a model with given weights, on the same validation data and the same batches always."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ckptools.errors import TaskError
from ckptools.rerun.evaluate import evaluate, seeded
from ckptools.rerun.loading import put
from ckptools.rerun.task import Task, breaks_down

#: batches over which loss terms are paired
BATCHES = 8
#: so far (log ratio) a validation loss may be from itself; graphics cards stay within 1e-4
_UNREPEATED = 0.01
#: a term below this part of the total says nothing about the model
_NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class Terms:
    """Unweighted loss terms in eval mode, batch by batch; empty where the loss broke down."""

    by_batch: tuple[Mapping[str, float], ...]
    weights: Mapping[str, float] = field(default_factory=dict)

    def mean(self, name: str) -> float:
        """Return the mean of a term; nan where it is missing."""
        values = [one.get(name, math.nan) for one in self.by_batch]
        return sum(values) / len(values) if values else math.nan

    @cached_property
    def totals(self) -> list[float]:
        """The weighted sum of each batch."""
        return [
            sum(self.weights.get(name, 1.0) * value for name, value in one.items())
            if one
            else math.nan
            for one in self.by_batch
        ]

    @property
    def total(self) -> float:
        """The mean weighted sum."""
        return sum(self.totals) / len(self.totals) if self.totals else math.nan

    def matters(self, name: str) -> bool:
        """Return whether a term is more than a negligible part of the total."""
        part = abs(self.weights.get(name, 1.0) * self.mean(name))
        return not math.isfinite(part) or part >= _NEGLIGIBLE * abs(self.total)


class Measuring:
    """Measures weights in the task's model, and counts how often.

    Attributes
    ----------
    evaluations: passes over validation data or batches so far.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        self.task = task
        self.model = model
        self.evaluations = 0

    @cached_property
    def batches(self) -> list[Any]:
        """A few batches of the task, kept."""
        return list(islice(self.task.batches(0), BATCHES))  # HeldTask refuses to give none

    def values(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the task's validation values."""
        put(self.model, weights)
        self.evaluations += 1
        return evaluate(self.task, self.model)

    def repeated(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the validation values, measured twice.

        TaskError when the loss differs: then no two checkpoints can be compared.
        """
        first, again = self.values(weights), self.values(weights)
        if abs(log_ratio(again["loss"], first["loss"])) > _UNREPEATED:
            raise TaskError(
                f"evaluate gives {first['loss']:.4g} and then {again['loss']:.4g} for the same "
                "weights",
                next="let it look at the same data each time, and seed its own random numbers",
            )
        return first

    def loss(self, weights: Mapping[str, Tensor]) -> float:
        """Return the validation loss."""
        return self.values(weights)["loss"]

    def terms(self, weights: Mapping[str, Tensor]) -> Terms:
        """Return the loss terms on the kept batches."""
        put(self.model, weights)
        self.evaluations += 1
        self.model.eval()
        with torch.no_grad(), seeded(0):
            found = tuple(terms_of(self.task, self.model, batch) for batch in self.batches)
        return Terms(found, self.task.weights())


def terms_of(task: Task, model: nn.Module, batch: Any) -> dict[str, float]:
    """Return the unweighted terms of a batch; nothing where a sick model breaks the loss."""
    try:
        return {name: float(value.detach()) for name, value in task.loss(model, batch).items()}
    except TaskError:
        if breaks_down(model, lambda: task.loss(model, batch)):
            return {}
        raise


def log_ratio(value: float, reference: float) -> float:
    """Return how much worse a loss is: log of the quotient, or the difference where one is <= 0.

    What is no number is infinitely worse than what is one; two of them are equal.
    """
    if not math.isfinite(value) or not math.isfinite(reference):
        both = math.isfinite(value) == math.isfinite(reference)
        return 0.0 if both else math.inf if math.isfinite(reference) else -math.inf
    if value > 0.0 and reference > 0.0:
        return math.log(value / reference)
    return (value - reference) / max(abs(reference), 1e-12)
