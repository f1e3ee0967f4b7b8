"""A LightningModule with its data as a task.

::

    def make(settings):                  # ckptools rerun last.ckpt --task file.py:make
        return LitModel(**settings), LitData()

The second is a LightningDataModule, or a pair of loaders (training, validation).  A Trainer may
follow: its clipping and accumulation are then kept.  The Trainer's loop is not run.
``training_step`` gives the loss; ``validation_step`` may return one, or log one: what it logs is
averaged over the batches.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ckptools.errors import TaskError
from ckptools.rerun.adapters import adapters, is_a
from ckptools.rerun.adapters.functions import endless
from ckptools.rerun.batches import moved

_PACKAGES = ("lightning", "pytorch_lightning")


@adapters.register("lightning")
def lightning(made: Any, again: Callable[[], Any]) -> Any:
    """Return the task of a LightningModule and its data."""
    if is_a(made, "LightningModule", *_PACKAGES):
        raise TaskError("a LightningModule alone has no data", next="return (module, datamodule)")
    if not isinstance(made, tuple) or not made or not is_a(made[0], "LightningModule", *_PACKAGES):
        return None
    return LightningTask(made, again)


class LightningTask:
    """What a Lightning Trainer would do, step by step."""

    def __init__(self, made: Sequence[Any], again: Callable[[], Any]) -> None:
        self._module, self._data, trainer = (*made, None)[:3]
        self._again = again
        self._fresh = True
        self._logged: dict[str, list[float]] = {}
        if not self._module.automatic_optimization:
            raise TaskError("manual optimization cannot be run step by step from outside")
        limit = getattr(trainer, "gradient_clip_val", None)
        self.clip_norm = float(limit) if limit else math.inf
        self._accumulated = int(getattr(trainer, "accumulate_grad_batches", 1) or 1)
        self._ready = False
        self._schedules: WeakKeyDictionary[torch.optim.Optimizer, _Schedule | None]
        self._schedules = WeakKeyDictionary()
        if _configured(self._module)[1] is not None:
            self.scheduler = self._scheduler
        self._hear(self._module)

    def build(self) -> nn.Module:
        """Return the module; a fresh one from the second call on."""
        if not self._fresh:
            self._module = self._again()[0]
            self._hear(self._module)
        self._fresh = False
        module: nn.Module = self._module
        return module

    def _hear(self, module: Any) -> None:
        """Let the module's log calls reach us: without a Trainer they go nowhere."""

        def log(name: str, value: Any, *rest: Any, **options: Any) -> None:
            if isinstance(value, (int, float)) or (
                isinstance(value, Tensor) and value.numel() == 1
            ):
                number = value.detach() if isinstance(value, Tensor) else value
                self._logged.setdefault(name, []).append(float(number))

        def log_dict(values: Mapping[str, Any], *rest: Any, **options: Any) -> None:
            for name, value in values.items():
                log(name, value)

        module.log, module.log_dict = log, log_dict

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the one optimizer that the module configures; its schedule is built with it."""
        made, schedule = _configured(model)
        self._schedules[made] = schedule
        return made

    def _scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return the schedule of an optimizer of ours.

        One that is stepped every epoch does not move within a short training.
        """
        schedule, every_step = self._schedules[optimizer] or (None, False)
        return schedule if every_step else _Still(schedule)

    def batches(self, seed: int) -> Iterator[list[Any]]:
        """Yield lists of micro-batches, epoch after epoch; shuffled by the random numbers set."""
        self._set_up()
        found = endless(lambda: self._loader("train_dataloader", 0))
        while True:
            yield list(islice(found, self._accumulated))

    def loss(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Return the mean of ``training_step``'s losses over the micro-batches."""
        losses = [
            _loss(_called(model.training_step, one, number)) for number, one in enumerate(batch)
        ]
        if any(value is None for value in losses):
            raise TaskError("training_step gives no loss")
        return torch.stack([value for value in losses if value is not None]).mean()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the means of what ``validation_step`` logs, and its loss."""
        with torch.no_grad():
            return self._evaluated(model)

    def _evaluated(self, model: nn.Module) -> dict[str, float]:
        self._set_up()
        self._logged.clear()
        device = str(next(model.parameters()).device)
        losses: list[float] = []
        for number, batch in enumerate(self._loader("val_dataloader", 1)):
            value = _loss(_called(model.validation_step, moved(batch, device), number))
            if value is not None:
                losses.append(float(value))
        logged = {name: sum(values) / len(values) for name, values in self._logged.items()}
        if losses:
            return {**logged, "loss": sum(losses) / len(losses)}
        return _with_loss(logged)

    def _set_up(self) -> None:
        """Prepare the data once, as a Trainer does before it fits."""
        if self._ready or not hasattr(self._data, "setup"):
            return
        self._data.prepare_data()
        self._data.setup("fit")
        self._ready = True

    def _loader(self, name: str, place: int) -> Any:
        if hasattr(self._data, name):
            return getattr(self._data, name)()
        return self._data[place]


class _Still:
    """A schedule that is stepped every epoch, seen from within one: it keeps its state only."""

    def __init__(self, schedule: Any) -> None:
        self._schedule = schedule

    def step(self) -> None:
        """Do nothing: the epoch does not end."""

    def load_state_dict(self, state: Any) -> None:
        """Take up the schedule's own state."""
        self._schedule.load_state_dict(state)

    @property
    def base_lrs(self) -> Any:
        """The learning rates that the schedule's factors are for."""
        return getattr(self._schedule, "base_lrs", [])


def _called(step: Callable[..., Any], batch: Any, number: int) -> Any:
    """Call a step with the batch, and with its number where it takes one."""
    takes = len(inspect.signature(step).parameters)
    return step(batch, number) if takes > 1 else step(batch)


def _loss(found: Any) -> Tensor | None:
    """Return the loss that a step gave, as a tensor or under the name ``loss``."""
    if isinstance(found, Mapping):
        found = found.get("loss")
    return found if isinstance(found, Tensor) else None


def _with_loss(logged: dict[str, float]) -> dict[str, float]:
    """Return what was logged, the one value that is called a loss under ``loss``."""
    for name in ("loss", "val_loss", "valid_loss", "validation_loss"):
        if name in logged:
            return {**logged, "loss": logged[name]}
    named = [name for name in logged if "loss" in name.lower()]
    if len(named) == 1:
        return {**logged, "loss": logged[named[0]]}
    listed = ", ".join(logged) or "nothing"
    raise TaskError(f"validation_step returns no loss and logs {listed}", next='log "val_loss"')


_Schedule = tuple[Any, bool]


def _configured(module: Any) -> tuple[torch.optim.Optimizer, _Schedule | None]:
    """Return optimizer and schedule of ``configure_optimizers``, in any form that it may have.

    The schedule comes with whether it is stepped every step.  TaskError for several optimizers.
    """
    made = module.configure_optimizers()
    schedule: Any = None
    if isinstance(made, Mapping):
        made, schedule = made["optimizer"], made.get("lr_scheduler")
    elif isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], (list, tuple)):
        made, schedule = made[0], (made[1] or [None])[0]
    if isinstance(made, (list, tuple)):
        if len(made) != 1:
            raise TaskError(f"the module has {len(made)} optimizers; a task has one")
        (made,) = made
        if isinstance(made, Mapping):
            made, schedule = made["optimizer"], made.get("lr_scheduler")
    if schedule is None:
        return made, None
    if isinstance(schedule, Mapping):
        return made, (schedule["scheduler"], schedule.get("interval", "epoch") == "step")
    return made, (schedule, False)
