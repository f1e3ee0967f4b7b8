"""Train the lane detector and leave behind what a training run leaves: checkpoints and logs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ckptools.errors import CorruptFile, WouldOverwrite
from ckptools.lanes.record import JSON_LOG, TEXT_LOG, Epoch, RunLog
from ckptools.lanes.task import STEPS_PER_EPOCH, Lanes

Talk = Callable[[str], None]
#: Batches of epoch E come from seed * this + E.
_EPOCHS_APART = 10_000
_SCALE = 2.0**16


def train(
    folder: str | Path,
    *,
    epochs: int = 14,
    seed: int = 0,
    prefix: str = "",
    resume: str | Path | None = None,
    talk: Talk | None = None,
    **settings: Any,
) -> Path:
    """Train up to an epoch and return the path of the last checkpoint.

    Writes ``checkpoint_epoch_0.pth`` (before the first step) to ``checkpoint_epoch_N.pth``,
    ``train.jsonl`` and ``train.log``.  On one machine the same arguments give the same weights,
    whether or not the run was resumed on the way.

    Parameters
    ----------
    folder: made when missing; files of a run in it raise :class:`WouldOverwrite`.
    epochs: the last epoch, counted from the beginning of the run.
    seed: of weights and data.
    prefix: put before every name of the model, e.g. ``module.`` as DistributedDataParallel does.
    resume: a checkpoint of such a run to continue from (weights, optimizer, schedule, scaler).
    talk: called with one line after every epoch.
    settings: of the task (:class:`ckptools.lanes.settings.LaneSettings`).
    """
    task = Lanes(settings)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        run = _Run(task, folder, seed, prefix)
        if resume is not None:
            run.load(Path(resume))
        run.refuse_overwriting(epochs, fresh=resume is None)
        with RunLog(folder, task.chosen.aux_weights, task.clip_norm) as log:
            run.open(log, fresh=resume is None)
            while run.epoch < epochs:
                values = run.train_epoch(log)
                if talk is not None:
                    talk(_sentence(run.epoch, values))
    return run.path(run.epoch)


def _sentence(epoch: int, values: dict[str, float]) -> str:
    return (
        f"epoch {epoch}: validation loss {values['loss']:.2f}, mAP {values['mAP']:.3f}, "
        f"{values['valid']:.1f} valid predictions per scene"
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: on tensors this small more are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run:
    """A run in progress: everything that a checkpoint saves."""

    def __init__(self, task: Lanes, folder: Path, seed: int, prefix: str) -> None:
        self.task = task
        self.folder = folder
        self.seed = seed
        self.prefix = prefix
        self.epoch = 0
        self.model = task.build()
        self.optimizer = task.optimizer(self.model)
        self.scheduler = task.scheduler(self.optimizer)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=_SCALE)

    def path(self, epoch: int) -> Path:
        """Return where the checkpoint of an epoch lies."""
        return self.folder / f"checkpoint_epoch_{epoch}.pth"

    def refuse_overwriting(self, epochs: int, *, fresh: bool) -> None:
        """Raise WouldOverwrite when a file that the run would write is there."""
        first = 0 if fresh else self.epoch + 1
        targets = [self.path(epoch) for epoch in range(first, epochs + 1)]
        logs = [self.folder / JSON_LOG, self.folder / TEXT_LOG] if fresh else []
        for target in targets + logs:
            if target.exists():
                raise WouldOverwrite(
                    "a run has left this file here", where=str(target), next="give another folder"
                )

    def open(self, log: RunLog, *, fresh: bool) -> None:
        """Head the record; a fresh run also judges and saves the untrained model."""
        kind = "from scratch" if fresh else f"resumed after epoch {self.epoch}"
        weights = list(self.task.chosen.aux_weights)
        log.title(
            [
                f"# Q-Former lane detector, {kind}",
                f"aux_weights: {weights}",
                f"grad_clip: {self.task.clip_norm}",
                f"steps per epoch: {STEPS_PER_EPOCH}",
            ]
        )
        if fresh:
            log.validation(0, 0, self.evaluate())
            self.save()

    def train_epoch(self, log: RunLog) -> dict[str, float]:
        """Train one epoch, judge, write logs and checkpoint; return the validation values."""
        self.epoch += 1
        done = Epoch()
        batches = self.task.batches(self.seed * _EPOCHS_APART + self.epoch)
        first = (self.epoch - 1) * STEPS_PER_EPOCH + 1
        for step, batch in enumerate(islice(batches, STEPS_PER_EPOCH), start=first):
            rates = self.rates()
            terms, norm = self.train_step(batch)
            done.terms.append(terms)
            done.norms.append(norm)
            log.step(self.epoch, step, terms, norm, rates)
        values = self.evaluate()
        log.validation(self.epoch, self.epoch * STEPS_PER_EPOCH, values)
        log.paragraph(self.epoch, done, values, self.rates())
        self.save()
        return values

    def train_step(self, batch: dict[str, Any]) -> tuple[dict[str, float], float]:
        """Take one step; return the unweighted terms and the gradient norm before clipping."""
        weights = self.task.weights()
        terms = self.task.loss(self.model, batch)
        self.optimizer.zero_grad()
        self.scaler.scale(sum(weights[name] * term for name, term in terms.items())).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.task.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return {name: float(term.detach()) for name, term in terms.items()}, float(norm)

    def evaluate(self) -> dict[str, float]:
        """Return the validation values."""
        self.model.eval()
        values: dict[str, float] = self.task.evaluate(self.model)
        self.model.train()
        return values

    def rates(self) -> dict[str, float]:
        """Return the learning rate of each group."""
        return {group["name"]: float(group["lr"]) for group in self.optimizer.param_groups}

    def save(self) -> None:
        """Write the checkpoint of this epoch: whole or not at all."""
        weights = {self.prefix + name: value for name, value in self.model.state_dict().items()}
        checkpoint = {
            "epoch": self.epoch,
            "model_state_dict": weights,
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "args": self.arguments(),
        }
        target = self.path(self.epoch)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            written = Path(scratch) / target.name
            torch.save(checkpoint, written)
            written.rename(target)

    def arguments(self) -> argparse.Namespace:
        """Return the settings of the run, as a training script's command line gives them."""
        chosen = asdict(self.task.chosen)
        del chosen["log"]
        lists = {name: list(value) for name, value in chosen.items() if isinstance(value, tuple)}
        return argparse.Namespace(**{**chosen, **lists}, seed=self.seed)

    def load(self, path: Path) -> None:
        """Take up a saved run."""
        checkpoint = load(path)
        try:
            self.epoch = checkpoint["epoch"]
            weights = checkpoint["model_state_dict"]
            self.model.load_state_dict(
                {name.removeprefix(self.prefix): value for name, value in weights.items()}
            )
            self.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
            self.scheduler.load_state_dict(checkpoint["scheduler"])
            self.scaler.load_state_dict(checkpoint["scaler"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CorruptFile(
                f"not a checkpoint of this lanes run: {error}",
                where=str(path),
                next="give the size, blocks and prefix that the run was started with",
            ) from error


def load(path: str | Path) -> dict[str, Any]:
    """Return a lanes checkpoint, loaded by torch with nothing but plain data allowed."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint
