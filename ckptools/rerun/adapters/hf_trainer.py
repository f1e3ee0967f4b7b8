"""A HF Trainer as a task: its own model, data, optimizer, schedule and loss.

::

    def make(settings):                  # ckptools rerun checkpoint-500 --task file.py:make
        return Trainer(model=..., args=TrainingArguments(...), train_dataset=..., eval_dataset=...)

The Trainer's loop is not run, nor its callbacks: the harness takes the steps.  Its loss is one
total, so weights of loss terms cannot be changed.  Micro-batches that are accumulated are one
batch here, their losses averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckptools.errors import TaskError
from ckptools.rerun.adapters import adapters, is_a


@adapters.register("hf-trainer")
def hf_trainer(made: Any, again: Callable[[], Any]) -> Any:
    """Return the task of a ``transformers.Trainer``."""
    return TrainerTask(made, again) if is_a(made, "Trainer", "transformers") else None


class TrainerTask:
    """What a Trainer would do, step by step."""

    def __init__(self, trainer: Any, again: Callable[[], Any]) -> None:
        self._trainer = trainer
        self._again = again
        self._fresh = True
        self.clip_norm = float(trainer.args.max_grad_norm or math.inf)
        if trainer.eval_dataset is None:
            raise TaskError("the Trainer has no eval_dataset, so no model can be judged")

    def build(self) -> nn.Module:
        """Return the Trainer's model; a fresh one from the second call on."""
        if not self._fresh:
            self._trainer = self._again()
        self._fresh = False
        model: nn.Module = self._trainer.model
        return model.to("cpu")

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the Trainer's optimizer for a model."""
        trainer = self._trainer
        given, before = trainer.optimizer, trainer.model
        trainer.model, trainer.optimizer = model, None
        try:
            made: torch.optim.Optimizer = trainer.create_optimizer()
        finally:
            trainer.model, trainer.optimizer = before, given
        return made

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return the Trainer's schedule over its whole run."""
        self._trainer.lr_scheduler = None
        return self._trainer.create_scheduler(self._steps(), optimizer)

    def _steps(self) -> int:
        """Return how many steps the Trainer's run takes."""
        args = self._trainer.args
        if args.max_steps > 0:
            return int(args.max_steps)
        batches = len(self._trainer.get_train_dataloader())
        steps = math.ceil(batches / self._accumulated) * float(args.num_train_epochs)
        return math.ceil(steps)

    @property
    def _accumulated(self) -> int:
        return max(1, int(self._trainer.args.gradient_accumulation_steps))

    def batches(self, seed: int) -> Iterator[list[Any]]:
        """Yield lists of micro-batches, epoch after epoch; shuffled by the random numbers set."""
        loader = self._trainer.get_train_dataloader()
        endless = _epochs(loader)
        while True:
            yield list(islice(endless, self._accumulated))

    def loss(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Return the Trainer's loss over the micro-batches."""
        losses = [self._trainer.compute_loss(model, dict(one)) for one in batch]
        return torch.stack(losses).mean()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the mean loss over the evaluation batches, and the Trainer's metrics."""
        with torch.no_grad():
            return self._evaluated(model)

    def _evaluated(self, model: nn.Module) -> dict[str, float]:
        trainer = self._trainer
        device = next(model.parameters()).device
        losses: list[float] = []
        seen: list[tuple[Any, Any]] = []
        for batch in trainer.get_eval_dataloader():
            inputs = {n: v.to(device) if hasattr(v, "to") else v for n, v in batch.items()}
            labels = tuple(inputs[name] for name in trainer.label_names if name in inputs)
            loss, outputs = trainer.compute_loss(model, inputs, return_outputs=True)
            losses.append(float(loss))
            if trainer.compute_metrics is not None:
                seen.append((_logits(trainer, outputs, labels), labels))
        if not losses:
            raise TaskError("there are no evaluation batches")
        return {"loss": sum(losses) / len(losses), **_metrics(trainer, seen)}


def _epochs(loader: Any) -> Iterator[Any]:
    epoch = 0
    while True:
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise TaskError("there are no training batches")
        epoch += 1


def _logits(trainer: Any, outputs: Any, labels: tuple[Any, ...]) -> Any:
    """Return what the Trainer hands to its metrics: all outputs but the loss, reduced its way."""
    if isinstance(outputs, Mapping):
        found = tuple(value for name, value in outputs.items() if name != "loss")
    else:
        found = tuple(outputs[1:])
    logits = found[0] if len(found) == 1 else found
    if trainer.preprocess_logits_for_metrics is not None:
        logits = trainer.preprocess_logits_for_metrics(logits, _one(labels))
    return logits


def _metrics(trainer: Any, seen: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """Return the Trainer's metrics that are numbers."""
    if not seen:
        return {}
    from transformers import EvalPrediction  # there: a Trainer was made

    found = trainer.compute_metrics(
        EvalPrediction(
            predictions=_joined([logits for logits, _ in seen]),
            label_ids=_joined([_one(labels) for _, labels in seen]),
        )
    )
    numbers = {name.removeprefix("eval_"): value for name, value in found.items()}
    return {n: float(v) for n, v in numbers.items() if np.ndim(v) == 0 and n != "loss"}


def _one(labels: tuple[Any, ...]) -> Any:
    return labels[0] if len(labels) == 1 else labels


def _joined(parts: Sequence[Any]) -> Any:
    """Return the batches of tensors (or of tuples of them) as one array each."""
    if isinstance(parts[0], (tuple, list)):
        return tuple(_joined(column) for column in zip(*parts, strict=True))
    if not isinstance(parts[0], Tensor):
        return parts
    return np.concatenate([part.float().cpu().numpy() for part in parts])
