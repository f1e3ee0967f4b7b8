"""The user's task: found by name, adapted to the protocol, and held to it.

What a name gives may be a task already, or what people have instead: a pair of plain functions, a
HF Trainer, a LightningModule with its data (:mod:`ckptools.rerun.adapters`).
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ckptools.errors import CkptoolsError, TaskError
from ckptools.rerun import batches as batching
from ckptools.rerun.adapters import adapted
from ckptools.rerun.adapters.functions import endless
from ckptools.rerun.machine import Machine
from ckptools.sources.user_code import FOREIGN, user_module

#: files of installed packages, and ours
_OTHERS = re.compile(
    r"[/\\](site|dist)-packages[/\\]|<frozen |[/\\]ckptools[/\\](rerun|sources)[/\\]"
)
#: what every task must have; ``weights``, ``scheduler``, ``clip_norm``, ``logged``, ``probes`` and
#: ``modules`` are optional
REQUIRED = ("build", "optimizer", "batches", "loss", "evaluate")


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


@dataclass
class HeldTask:
    """A task held to its protocol: on a device, in a precision, its own errors told from ours.

    Optional parts (``scheduler``, ``clip_norm``, ``logged``, ``modules``, ``probes``) are the
    task's own.

    Attributes
    ----------
    given: the user's object.
    spec, settings: what it was made of, so that an arm can make it again with other settings.
    machine: where and in which precision it runs.
    known: the settings it says it knows, None where it says nothing.
    """

    given: Any
    spec: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    known: tuple[str, ...] | None = None

    def build(self) -> nn.Module:
        """Return a fresh model on the device."""
        with _Users("build"):
            model = self.given.build()
        if not isinstance(model, nn.Module):
            raise TaskError(f"build gives no module but {type(model).__name__}", where=self.spec)
        return model.to(self.machine.device)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a run."""
        with _Users("optimizer"):
            optimizer = self.given.optimizer(model)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TaskError("optimizer gives no torch optimizer", where=self.spec)
        return optimizer

    def batches(self, seed: int) -> Iterator[Any]:
        """Yield batches on the device; their random numbers are kept apart from the model's.

        A loader that comes to its end is begun again.
        """
        batches = batching.isolated(lambda: endless(lambda: self.given.batches(seed)), seed)
        while True:
            with _Users("batches"):
                batch = batching.moved(next(batches), self.machine.device)
            yield batch

    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return the unweighted terms; a single tensor is the term ``total``."""
        with _Users("loss"), self.machine.precision():
            terms = self.given.loss(model, batch)
        if isinstance(terms, Tensor):
            terms = {"total": terms}
        if not isinstance(terms, Mapping) or not terms:
            raise TaskError(
                f"loss gives {_kind(terms)}",
                where=self.spec,
                next="return a tensor, or the unweighted terms as tensors by name",
            )
        wrong = [n for n, v in terms.items() if not isinstance(v, Tensor) or v.numel() != 1]
        if wrong:
            raise TaskError(
                f"loss: {wrong[0]} is {_kind(terms[wrong[0]])}, no tensor of one number",
                where=self.spec,
                next="take the mean over the batch",
            )
        return {str(name): value.reshape(()) for name, value in terms.items()}

    def weights(self) -> dict[str, float]:
        """Return the weight of each term, none where the task gives none."""
        if getattr(self.given, "weights", None) is None:
            return {}
        with _Users("weights"):
            return {name: float(value) for name, value in self.given.weights().items()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the validation values as plain numbers.

        A task that cannot bear what a sick model puts out (a matching without finite costs, say)
        gives the loss nan: that is a result.
        """
        try:
            with _Users("evaluate"), self.machine.precision():
                return self._values(self.given.evaluate(model))
        except TaskError:
            if breaks_down(model, lambda: self.given.evaluate(model)):
                return {"loss": float("nan")}
            raise

    def _values(self, found: Any) -> dict[str, float]:
        """Return what the user's evaluate gave as plain numbers; one number is the loss."""
        if isinstance(found, (int, float, Tensor, np.number)):
            found = {"loss": found}
        if not isinstance(found, Mapping):
            raise TaskError(
                f"evaluate gives {_kind(found)}",
                where=self.spec,
                next='return {"loss": ..., ...}, lower is better',
            )
        return {str(name): float(value) for name, value in found.items()}

    @property
    def clip_norm(self) -> float | None:
        """The largest norm of a gradient; None where the task does not clip."""
        given = getattr(self.given, "clip_norm", None)
        with _Users("clip_norm"):
            return None if given is None else float(given)

    @property
    def logged(self) -> dict[int, dict[str, float]]:
        """The values that the run logged, by epoch; a single number is the loss."""
        given = getattr(self.given, "logged", None) or {}
        with _Users("logged"):
            return {
                int(epoch): {str(n): float(v) for n, v in values.items()}
                if isinstance(values, Mapping)
                else {"loss": float(values)}
                for epoch, values in given.items()
            }

    def again(self, settings: Mapping[str, Any]) -> HeldTask:
        """Return the task made anew with further settings; TaskError when it refuses them."""
        return load_task(self.spec, self.settings | dict(settings), self.machine)

    def __getattr__(self, name: str) -> Any:
        """Return an optional part of the task; a function of it is the user's code, too."""
        if name.startswith("__") or name == "given":
            raise AttributeError(name)
        part = getattr(self.given, name)
        if not callable(part):
            return part

        @functools.wraps(part)
        def call(*arguments: Any, **named: Any) -> Any:
            with _Users(name):
                return part(*arguments, **named)

        return call


class _Users:
    """Around the user's code: what it raises becomes a TaskError, what it prints is talk.

    An interrupt stays one; ``sys.exit`` of a script that was never meant to be imported does not.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._talk = redirect_stdout(sys.stderr)

    def __enter__(self) -> None:
        self._talk.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._talk.__exit__(kind, error, trace)
        if not isinstance(error, (Exception, SystemExit)) or isinstance(error, CkptoolsError):
            return
        what = " ".join(str(error).split()) or "no message"
        raise TaskError(
            f"the task's {self._part} raised {type(error).__name__}: {what}", where=_line(error)
        ) from error


def _line(error: BaseException) -> str | None:
    """Return the last line of the user's own code in a traceback, else the last one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not _OTHERS.search(one.filename)] or list(frames)
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def breaks_down(model: nn.Module, again: Callable[[], Any]) -> bool:
    """Return whether some module puts out what is no number when ``again`` is called."""
    values = (*model.parameters(), *model.buffers())
    if not all(_finite(value) for value in values):
        return True
    seen: list[bool] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        seen.append(not _finite(output))

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with torch.no_grad(), _Users("loss"):
            again()
    except TaskError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return any(seen)


def _kind(value: Any) -> str:
    """Return what a value is, in words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None:
        return "nothing"
    if isinstance(value, Mapping) and not value:
        return "no terms"
    return f"a value of type {type(value).__name__}"


def _finite(value: Any) -> bool:
    """Return whether all floating tensors in nested containers are finite."""
    if isinstance(value, Tensor):
        return not (value.is_floating_point() or value.is_complex()) or bool(
            torch.isfinite(value).all()
        )
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, (list, tuple)) else True


def load_task(
    spec: str, settings: Mapping[str, Any] | None = None, machine: Machine | None = None
) -> HeldTask:
    """Return the task of ``package.module:Name``, ``file.py:Name`` or ``file.py:setup,loss``.

    Parameters
    ----------
    spec: a factory called with the settings, or the names of two plain functions.
    settings: what the task is made with.
    machine: where it runs; the CPU by default.

    Raises
    ------
    TaskError: it cannot be imported, refuses its settings, or lacks parts of the protocol (all of
        them are named).
    """
    where, _, name = spec.rpartition(":")
    if not where or not name:
        raise TaskError(f"{spec!r} names no task", next="give package.module:Name or file.py:Name")
    given = dict(settings or {})
    with _Users("file"):
        try:
            module = user_module(where)
            found = [getattr(module, one.strip()) for one in name.split(",")]
        except FOREIGN as error:
            raise TaskError(f"cannot find the task: {error}", where=spec) from error
    with _Users("factory"):
        try:
            task = adapted(found, given)
        except ValueError as error:
            raise TaskError(f"the task refuses its settings: {error}", where=spec) from error
        except FOREIGN as error:
            raise TaskError(f"cannot make the task: {error}", where=spec) from error
    lacking = [part for part in REQUIRED if not callable(getattr(task, part, None))]
    if lacking:
        raise TaskError(f"the task lacks {', '.join(lacking)}", where=spec)
    listed = getattr(task, "settings", None)
    known = tuple(map(str, listed)) if isinstance(listed, (Mapping, list, tuple)) else None
    return HeldTask(task, spec, given, machine or Machine(), known)


def source_digest(spec: str) -> str:
    """Return a digest of the code that the task is made of, as far as it lies beside the task.

    For a module that is all of its package's folder, for a file the file and what it imported
    from its own folder or below.
    """
    where = spec.rpartition(":")[0]
    if where.endswith(".py"):
        start = Path(where).resolve()
        paths = [getattr(one, "__file__", None) for one in list(sys.modules.values())]
        imported = {Path(one).resolve() for one in paths if one and one.endswith(".py")}
        files = {start, *(one for one in imported if one.is_relative_to(start.parent))}
    else:
        module = sys.modules.get(where)
        found_at = getattr(module, "__file__", None)
        files = set(Path(found_at).parent.glob("*.py")) if found_at else set()
    found = hashlib.sha256()
    for file in sorted(files):
        found.update(str(file.name).encode())
        found.update(file.read_bytes() if file.is_file() else b"")
    return found.hexdigest()
