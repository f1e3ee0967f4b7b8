"""A pair of plain functions as a task: one that sets a run up, and one that gives the loss.

::

    def setup(width=64, lr=1e-3):            # its keywords are the settings that the task knows
        model = ...
        return {
            "model": model,
            "optimizer": torch.optim.AdamW(model.parameters(), lr=lr),
            "train": loader,                 # any iterable of batches, or a function of a seed
            "validation": [batch, ...],
        }

    def loss(model, batch):                  # a tensor, or unweighted terms by name
        ...

``ckptools rerun CKPT --task file.py:setup,loss`` asks for both by name.  ``setup`` may add
``scheduler`` (a function of the optimizer), ``clip_norm``, ``weights`` (of the terms),
``logged``, ``modules`` and ``evaluate`` (a function of the model, instead of the mean loss over
the validation batches).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ckptools.errors import TaskError
from ckptools.rerun.batches import moved

_NEEDED = ("model", "optimizer", "train")
_OPTIONAL = ("validation", "evaluate", "scheduler", "clip_norm", "weights", "logged", "modules")


class FunctionTask:
    """The task that ``setup`` and ``loss`` make; ValueError for settings that setup lacks."""

    def __init__(self, functions: Sequence[Callable[..., Any]], settings: Mapping[str, Any]):
        if len(functions) != 2:
            raise TypeError("a task of plain functions is a pair: setup,loss")
        self._setup, self._loss = functions
        self._given = dict(settings)
        self.settings = _keywords(self._setup)
        unknown = [name for name in settings if name not in self.settings]
        if unknown:
            known = ", ".join(self.settings) or "none"
            raise ValueError(f"no setting {', '.join(map(repr, unknown))} (known: {known})")
        self._run: Mapping[str, Any] = self._made()
        self._fresh = True
        for name in ("clip_norm", "logged", "modules"):
            if self._run.get(name) is not None:
                setattr(self, name, self._run[name])
        if self._run.get("scheduler") is not None:
            self.scheduler = self._run["scheduler"]

    def _made(self) -> Mapping[str, Any]:
        """Call setup and check what it gives."""
        made = self._setup(**self._given)
        if not isinstance(made, Mapping):
            raise TypeError(f"setup gives no mapping with {', '.join(_NEEDED)}")
        lacking = [name for name in _NEEDED if name not in made]
        strange = [name for name in made if name not in (*_NEEDED, *_OPTIONAL)]
        if "validation" not in made and "evaluate" not in made:
            lacking.append("validation")
        if lacking or strange:
            wrong = [f"lacks {name}" for name in lacking] + [f"knows no {name}" for name in strange]
            raise TypeError(f"what setup gives {', '.join(wrong)}")
        return made

    def build(self) -> nn.Module:
        """Return the model of the first set-up, then of fresh ones."""
        if not self._fresh:
            self._run = self._made()
        self._fresh = False
        model: nn.Module = self._run["model"]
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return an optimizer of the model as set-up made it, without any state."""
        made = self._run["optimizer"]
        if not isinstance(made, torch.optim.Optimizer):
            found: torch.optim.Optimizer = made(model)
            return found
        return rebuilt(made, self._run["model"], model)

    def batches(self, seed: int) -> Iterator[Any]:
        """Yield the training batches again and again."""
        train = self._run["train"]
        return iter(train(seed)) if callable(train) else endless(lambda: train)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        """Return what the user's function gives."""
        return self._loss(model, batch)

    def weights(self) -> dict[str, float]:
        """Return the weights that setup gave."""
        return dict(self._run.get("weights") or {})

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Return the user's values, or the mean terms over the validation batches."""
        judge = self._run.get("evaluate")
        if judge is not None:
            values = judge(model)
            return values if isinstance(values, Mapping) else {"loss": float(values)}
        device = next(model.parameters()).device
        validation = self._run["validation"]
        judged = validation() if callable(validation) else validation
        found = (self._loss(model, moved(batch, str(device))) for batch in judged)
        return mean_terms(found, self.weights())


def _keywords(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters of a function with their defaults."""
    found = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in found if one.kind is not one.VAR_KEYWORD}


def rebuilt(
    made: torch.optim.Optimizer, owner: nn.Module, model: nn.Module
) -> torch.optim.Optimizer:
    """Return an optimizer like ``made`` (of ``owner``'s parameters) for ``model``, without state.

    TaskError when it holds a parameter that is not the owner's.
    """
    names = {id(value): name for name, value in owner.named_parameters()}
    here = dict(model.named_parameters())
    groups = []
    for group in made.param_groups:
        if any(id(one) not in names for one in group["params"]):
            raise TaskError("the optimizer holds parameters that are not the model's")
        members = [here[names[id(one)]] for one in group["params"]]
        # a scheduler leaves its own notes in the groups of the optimizer that it was made for
        groups.append({k: v for k, v in group.items() if k != "initial_lr"} | {"params": members})
    fresh = copy.copy(made)
    # nor must its count of steps be shared: it replaces the method by one bound to the original
    fresh.__dict__ = {k: v for k, v in made.__dict__.items() if k != "step"}
    fresh.param_groups = groups
    fresh.state = type(made.state)(dict)
    return fresh


def endless(loader: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Yield the batches of a loader, epoch after epoch; TaskError when it has none."""
    while True:
        empty = True
        for batch in loader():
            empty = False
            yield batch
        if empty:
            raise TaskError("there are no training batches")


def mean_terms(found: Iterable[Any], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the means of terms over batches, and their weighted sum as ``loss``.

    A batch counts as one, whatever its size.
    """
    sums: dict[str, float] = {}
    count = 0
    for terms in found:
        named = {"total": terms} if isinstance(terms, Tensor) else terms
        for name, value in named.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        count += 1
    if not count:
        raise TaskError("there are no validation batches")
    means = {name: value / count for name, value in sums.items()}
    total = sum(weights.get(name, 1.0) * value for name, value in means.items())
    return {"loss": total} | {n: v for n, v in means.items() if n not in ("total", "loss")}
