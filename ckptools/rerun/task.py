"""The user's task: found by name, and held to its protocol before anything is run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ckptools.errors import TaskError

#: what every task must have; ``scheduler``, ``clip_norm``, ``logged`` and ``modules`` are optional
REQUIRED = ("build", "optimizer", "batches", "loss", "weights", "evaluate")


class Task(Protocol):
    """What a task must offer; see the manual for the optional parts."""

    def build(self) -> nn.Module:
        """Return a fresh model on the CPU."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a run."""

    def batches(self, seed: int) -> Iterator[Any]:
        """Yield batches, the same ones for the same seed."""

    def loss(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Return the unweighted terms."""

    def weights(self) -> Mapping[str, float]:
        """Return the weight of each term; one that is missing weighs 1."""

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Return validation values; ``loss`` is one of them, lower is better."""


def load_task(spec: str, settings: Mapping[str, Any] | None = None) -> Task:
    """Return the task that ``package.module:Name`` or ``file.py:Name`` makes.

    TaskError when it cannot be imported, refuses its settings, or lacks parts of the protocol
    (all of them are named).
    """
    where, _, name = spec.rpartition(":")
    if not where or not name:
        raise TaskError(f"{spec!r} names no task", next="give package.module:Name or file.py:Name")
    try:
        task = getattr(_module(where), name)(dict(settings or {}))
    except (ImportError, AttributeError, SyntaxError, TypeError, OSError) as error:
        raise TaskError(f"cannot make the task: {error}", where=spec) from error
    except ValueError as error:
        raise TaskError(f"the task refuses its settings: {error}", where=spec) from error
    lacking = [part for part in REQUIRED if not callable(getattr(task, part, None))]
    if lacking:
        raise TaskError(f"the task lacks {', '.join(lacking)}", where=spec)
    checked: Task = task
    return checked


def _module(where: str) -> ModuleType:
    """Import a module by its name, or by its file."""
    if not where.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(where)
    found = importlib.util.spec_from_file_location(Path(where).stem, where)
    if found is None or found.loader is None:
        raise ImportError(f"{where} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules.setdefault(found.name, module)  # dataclasses look their module up
    found.loader.exec_module(module)
    return module
