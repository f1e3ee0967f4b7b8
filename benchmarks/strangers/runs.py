"""The strangers: whose run it is, where its parts lie, and a training that writes its files."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ckptools.rerun.evaluate import evaluate
from ckptools.rerun.task import HeldTask, load_task

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Stranger:
    """A run nobody tuned the harness on.

    Attributes
    ----------
    name: of its file in ``tasks``.
    parts: modules to be damaged, at random.
    twins: two modules of the same shapes, to change places; None where there are none.
    second: the optimizer's slot of squares; None where it keeps none.
    first: its slot of mean gradients; None where it keeps none.
    weights, optimizer: what the file calls them.
    epochs, steps: how long it trains, steps an epoch.
    average: keep an average of the weights in the file.
    seen: fixes of the harness were made after looking at it.
    """

    name: str
    parts: tuple[str, ...]
    twins: tuple[str, str] | None
    second: str | None
    first: str | None
    weights: str = "model"
    optimizer: str = "optimizer"
    epochs: int = 6
    steps: int = 40
    average: bool = False
    seen: bool = True

    @property
    def path(self) -> Path:
        """The task's file."""
        return TASKS / f"{self.name}.py"

    def spec(self, form: str) -> str:
        """Return the task's name: of a class, or of the pair of plain functions."""
        return f"{self.path}:{'Task' if form == 'class' else 'setup,loss'}"


STRANGERS = (
    Stranger(
        "vision",
        ("stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"),
        ("layer2.0", "layer2.1"),
        None,
        "momentum_buffer",
        "state_dict",
        epochs=7,
        steps=24,
    ),
    Stranger(
        "patches",
        ("patch_embed", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "where"),
        ("blocks.1", "blocks.3"),
        "exp_avg_sq",
        "exp_avg",
        "state_dict",
        epochs=8,
        steps=60,
        average=True,
    ),
    Stranger(
        "reversal",
        ("embedding", "encoder", "decoder", "output"),
        ("encoder", "decoder"),
        "exp_avg_sq",
        "exp_avg",
        epochs=8,
        steps=80,
    ),
    Stranger(
        "table",
        ("encoder", "decoder", "regression"),
        None,
        "square_avg",
        None,
        "net",
        epochs=8,
        steps=64,
    ),
    Stranger(
        "critic",
        ("entry", "body.0", "body.1", "body.2", "exit"),
        ("body.0", "body.2"),
        "exp_avg_sq",
        "exp_avg",
        "generator",
        "optimizer_g",
        epochs=6,
        steps=60,
    ),
    Stranger(
        "language",
        tuple(f"base_model.model.transformer.h.{n}" for n in range(4)),
        ("base_model.model.transformer.h.1", "base_model.model.transformer.h.2"),
        "exp_avg_sq",
        "exp_avg",
        epochs=5,
        steps=30,
    ),
    Stranger(
        "diffusion",
        ("time", "entry", "down.0", "down.1", "middle.0", "middle.1", "up.0", "up.1", "exit"),
        ("down.1", "up.0"),
        "exp_avg_sq",
        "exp_avg",
        epochs=6,
        steps=80,
    ),
    Stranger(
        "points",
        ("local", "wide", "trunk", "kind", "size"),
        None,
        "sum",
        None,
        "net",
        epochs=6,
        steps=40,
        seen=False,
    ),
)


@dataclass(frozen=True)
class Run:
    """A trained stranger and its files."""

    stranger: Stranger
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    def path(self, epoch: int) -> Path:
        """Return an epoch's checkpoint."""
        return self.folder / f"epoch_{epoch}.pt"

    @property
    def last(self) -> int:
        """The last epoch."""
        return self.stranger.epochs - 1

    @property
    def worst(self) -> int:
        """The epoch whose validation loss rose most over that of the epoch before."""
        log = json.loads((self.folder / "log.json").read_text())
        losses = [log[str(epoch)]["loss"] for epoch in range(self.stranger.epochs)]
        return max(range(1, len(losses)), key=lambda n: losses[n] / losses[n - 1])

    @property
    def given(self) -> dict[str, Any]:
        """The settings with which the run is asked about."""
        judge = {"judge": str(self.path(self.last - 1))} if self.stranger.name == "critic" else {}
        return {"log": str(self.folder / "log.json"), **judge}


def trained(stranger: Stranger, folder: Path, seed: int = 0) -> Run:
    """Train a stranger, unless its files are there."""
    run = Run(stranger, folder / f"{stranger.name}{seed}")
    if not (run.folder / "log.json").exists():
        run.folder.mkdir(parents=True, exist_ok=True)
        _train(stranger, run.folder, seed)
    return run


def _train(stranger: Stranger, folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    task = load_task(stranger.spec("class"))
    playing = getattr(task.given, "critic", None) is not None
    if playing:
        task = load_task(f"{stranger.path}:Playing")
    model = task.build()
    optimizer = task.optimizer(model)
    build = getattr(task, "scheduler", None)
    scheduler = build(optimizer) if build else None
    by_epoch = getattr(task, "by_epoch", False)
    averaged = copy.deepcopy(model) if stranger.average else None
    batches = task.batches(seed)
    log = {}
    for epoch in range(stranger.epochs):
        for _ in range(stranger.steps):
            _step(task, model, optimizer, next(batches))
            if scheduler and not by_epoch:
                scheduler.step()
            if averaged is not None:
                _average(averaged, model)
        if scheduler and by_epoch:
            scheduler.step()
        log[epoch] = evaluate(task, model)
        own = task.given.state() if playing else {}  # the critic's, first in the file
        state = {
            **own,
            stranger.weights: model.state_dict(),
            stranger.optimizer: optimizer.state_dict(),
            "epoch": epoch,
            "global_step": (epoch + 1) * stranger.steps,
        }
        if scheduler:
            state["scheduler"] = scheduler.state_dict()
        if averaged is not None:
            state[f"{stranger.weights}_ema"] = averaged.state_dict()
        torch.save(state, folder / f"epoch_{epoch}.pt")
    (folder / "log.json").write_text(json.dumps(log))


def _step(task: HeldTask, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    model.train()
    terms, weigh = task.loss(model, batch), task.weights()
    optimizer.zero_grad()
    sum(weigh.get(name, 1.0) * value for name, value in terms.items()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), getattr(task, "clip_norm", None) or 1e9)
    optimizer.step()
    if hasattr(task.given, "after"):
        task.given.after(model, batch)


def _average(averaged: nn.Module, model: nn.Module) -> None:
    with torch.no_grad():
        for mean, value in zip(
            averaged.state_dict().values(), model.state_dict().values(), strict=True
        ):
            mean.lerp_(value, 0.02)
