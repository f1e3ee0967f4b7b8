"""Train a family's run: plain loops, nothing done to the weights but training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.families import MODELS, Family
from benchmarks.diagnosis.models import Lion
from ckptools.lanes import train as lanes
from ckptools.lanes.record import JSON_LOG
from ckptools.lanes.settings import RATES
from ckptools.lanes.task import Lanes, group_of
from tests.builders.small_models import BATCH, _settle, cross_entropy, vector_batches

#: Validation uses the stream's batches from here on, which training never reaches.
_VALIDATION = 400
RECORD = "run.json"
#: Precisions in which weights and states themselves are kept.
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: How much worse than its neighbours a healthy checkpoint may validate.
TREND = 1.10


def run(family: Family, seed: int, folder: Path) -> list[Path]:
    """Return the checkpoints of a run, epoch 0 first; trains it where it is not there yet."""
    record = folder / RECORD
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            left.unlink()
        kinds = {"gan": _train_gan, "lanes-small": _train_lanes, "lanes-full": _train_lanes}
        torch.manual_seed(seed)
        told = kinds.get(family.model, _train)(family, seed, folder)
        record.write_text(json.dumps(told), encoding="utf-8")
    return [folder / name for name in json.loads(record.read_text("utf-8"))["files"]]


def healthy(losses: list[float | None]) -> list[bool]:
    """Return which epochs validate within a tenth of their neighbours' trend.

    An epoch is out when its loss is above both neighbours' (or the one that it has) by more;
    epoch 0 has not been trained and is always in.
    """
    kept = []
    for epoch, loss in enumerate(losses):
        near = [losses[e] for e in (epoch - 1, epoch + 1) if 0 <= e < len(losses)]
        known = [one for one in near if one is not None]
        within = loss is None or not known or (math.isfinite(loss) and loss <= TREND * max(known))
        kept.append(epoch == 0 or within)
    return kept


def groups(model: nn.Module, family: Family) -> list[dict[str, Any]]:
    """Return the optimizer's groups with the names of their parameters."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if family.layered:
        return _layered(named, family.lr)
    if not family.split:
        return [{"named": named}]
    return [
        {"named": [(n, p) for n, p in named if p.ndim > 1], "weight_decay": 0.01},
        {"named": [(n, p) for n, p in named if p.ndim == 1], "weight_decay": 0.0},
    ]


def _layered(named: list[tuple[str, nn.Parameter]], lr: float) -> list[dict[str, Any]]:
    """Return a group for each block and each outer module; the first are the slowest."""
    found: dict[str, list[Any]] = {}
    for name, parameter in named:
        found.setdefault(".".join(name.split(".")[:-1][:2]), []).append((name, parameter))
    rates = (lr * 0.8 ** (len(found) - place) for place in range(1, len(found) + 1))
    return [{"named": one, "lr": rate} for one, rate in zip(found.values(), rates, strict=True)]


def scheduler(family: Family, optimizer: torch.optim.Optimizer) -> Any:
    """Return the schedule, built as its users build it."""
    total = family.steps_until(family.epochs)
    kinds: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total),
        "step": lambda: torch.optim.lr_scheduler.StepLR(optimizer, 2 * family.steps, 0.3),
        "warm-up": lambda: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / 30) * max(0.05, 1 - step / total)
        ),
        "one-cycle": lambda: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, family.lr, total_steps=total + 1
        ),
        "restarts": lambda: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
            optimizer, 2 * family.steps
        ),
        "plateau": lambda: torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=0, threshold=0.05
        ),
        "noam": lambda: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / 40, ((step + 1) / 40) ** -0.5)
        ),
    }
    return kinds[family.schedule]()


def build(family: Family, seed: int) -> tuple[nn.Module, Iterator[Any]]:
    """Return the model before the run's first step, and its stream of batches."""
    torch.manual_seed(seed)
    make, batches = MODELS[family.model]
    model = make()
    if family.model == "lora":
        _settle(model, batches(seed))
    for name, parameter in model.named_parameters():
        if name.startswith(family.frozen or "\0"):
            parameter.requires_grad_(False)
    return model.to(DTYPES.get(family.precision, torch.float32)), batches(seed)


def _train(family: Family, seed: int, folder: Path) -> dict[str, Any]:
    model, stream = build(family, seed)
    chosen = groups(model, family)
    names = [name for group in chosen for name, _ in group["named"]]
    optimizer = _optimizer(family, chosen)
    course = _Course(model, optimizer, scheduler(family, optimizer), _scaler(family), {})
    check = validation(family, seed)
    files, losses = [], []
    for epoch in range(family.epochs + 1):
        if epoch:
            model.train()
            steps = family.steps_until(epoch) - family.steps_until(epoch - 1)
            for batch in islice(stream, steps):
                _step(family, course, batch)
        files.append(folder / f"epoch_{epoch}.pth")
        losses.append(check(model))
        if epoch and family.schedule == "plateau":
            course.schedule.step(losses[-1])
        _save(family, files[-1], epoch, course, seed)
    return _record(files, losses, {"optimizer": names})


@dataclass(frozen=True)
class _Course:
    """What a training moves along: model, optimizer, schedule, loss scaler, averages of weights."""

    model: nn.Module
    optimizer: Any
    schedule: Any
    scaler: Any
    average: dict[str, Tensor]


def _optimizer(family: Family, chosen: list[dict[str, Any]]) -> Any:
    make = Lion if family.optimizer == "Lion" else getattr(torch.optim, family.optimizer)
    given = []
    for group in chosen:
        named = group.pop("named")
        given.append({"params": named if family.named else [p for _, p in named], **group})
    return make(given, lr=family.lr, **family.options)


def _scaler(family: Family) -> Any:
    return torch.amp.GradScaler(
        "cpu", 2.0**20, growth_interval=20, enabled=family.precision == "scaled"
    )


def _follow(average: dict[str, Tensor], weights: dict[str, Tensor], decay: float) -> None:
    for name, value in weights.items():
        known = average.setdefault(name, value.detach().clone())
        if value.is_floating_point():
            known.lerp_(value, 1 - decay)
        else:
            known.copy_(value)


def _step(family: Family, course: _Course, batch: Any) -> None:
    course.optimizer.zero_grad(set_to_none=True)
    course.scaler.scale(loss_of(family, course.model, batch)).backward()
    if family.clip is not None:
        course.scaler.unscale_(course.optimizer)
        nn.utils.clip_grad_norm_(course.model.parameters(), family.clip)
    course.scaler.step(course.optimizer)
    course.scaler.update()
    if course.schedule is not None and family.schedule != "plateau":
        course.schedule.step()
    if family.ema is not None:
        _follow(course.average, course.model.state_dict(), family.ema)


def loss_of(family: Family, model: nn.Module, batch: Any) -> Tensor:
    """Return the loss of a batch in the family's precision."""
    x, target = batch
    if family.precision in DTYPES:
        x = x.to(DTYPES[family.precision]) if x.is_floating_point() else x
        return functional.cross_entropy(model(x).flatten(0, -2).float(), target.flatten())
    computed = torch.float16 if family.precision == "scaled" else torch.bfloat16
    with torch.autocast("cpu", computed, enabled=family.precision in ("amp", "scaled")):
        return cross_entropy(model, batch)


@lru_cache(maxsize=2)
def validation(family: Family, seed: int) -> Callable[[nn.Module], float]:
    """Return what gives the validation loss of a model of the run."""
    data = list(islice(MODELS[family.model][1](seed), _VALIDATION, _VALIDATION + 8))

    def check(model: nn.Module) -> float:
        model.eval()
        with torch.no_grad():
            values = [float(loss_of(family, model, batch)) for batch in data]
        return sum(values) / len(values)

    return check


def _save(family: Family, path: Path, epoch: int, course: _Course, seed: int) -> None:
    weights, schedule = course.model.state_dict(), course.schedule
    if family.precision == "fp16-file":
        weights = {
            name: value.half() if value.is_floating_point() else value
            for name, value in weights.items()
        }
    state = {
        "model": weights,
        "optimizer": course.optimizer.state_dict(),
        "epoch": epoch,
        "global_step": family.steps_until(epoch),
        "args": {"lr": family.lr, "seed": seed, "clip": family.clip},
    }
    if family.ema is not None:
        state["model_ema"] = course.average or weights
    if course.scaler.is_enabled():
        state["scaler"] = course.scaler.state_dict()
    if schedule is not None:
        state["scheduler"] = {k: v for k, v in schedule.state_dict().items() if not callable(v)}
    torch.save(state, path)


def _record(files: list[Path], losses: list[Any], order: dict[str, list[str]]) -> dict[str, Any]:
    return {"files": [path.name for path in files], "losses": losses, "order": order}


def _train_gan(family: Family, seed: int, folder: Path) -> dict[str, Any]:
    parts = {
        "generator": nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
            nn.Linear(32, 20),
        ),
        "discriminator": nn.Sequential(
            nn.Linear(20, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2),
            nn.Linear(32, 1),
        ),
    }  # fmt: skip
    drivers = {
        name: getattr(torch.optim, family.optimizer)(
            part.parameters(), lr=family.lr, **family.options
        )
        for name, part in parts.items()
    }
    stream, files = vector_batches(seed, (20,)), []
    for epoch in range(family.epochs + 1):
        for batch in islice(stream, family.steps if epoch else 0):
            _gan_step(parts, drivers, batch[0])
        files.append(folder / f"epoch_{epoch}.pth")
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        state |= {f"optimizer_{name[0]}": one.state_dict() for name, one in drivers.items()}
        state |= {"epoch": epoch, "iteration": epoch * family.steps}
        torch.save(state, files[-1])
    order = {
        f"optimizer_{name[0]}": [f"{name}:{key}" for key, _ in part.named_parameters()]
        for name, part in parts.items()
    }
    return _record(files, [None] * len(files), order)


def _gan_step(parts: dict[str, nn.Module], drivers: dict[str, Any], real: Tensor) -> None:
    generator, judge = parts["generator"], parts["discriminator"]
    fake = generator(torch.randn(BATCH, 8))
    real_loss, fake_loss = (
        functional.softplus(-judge(real)),
        functional.softplus(judge(fake.detach())),
    )
    for part, loss in (
        ("discriminator", (real_loss + fake_loss).mean),
        ("generator", lambda: functional.softplus(-judge(fake)).mean()),
    ):
        drivers[part].zero_grad()
        loss().backward()
        drivers[part].step()


def _train_lanes(family: Family, seed: int, folder: Path) -> dict[str, Any]:
    size = family.model.removeprefix("lanes-")
    lanes.train(folder, epochs=family.epochs, seed=seed, size=size, prefix="module.")
    task = Lanes({"size": size, "log": folder / JSON_LOG})
    logged = task.logged
    names = [name for name, p in task.build().named_parameters() if p.requires_grad]
    order = [name for group in RATES for name in names if group_of(name) == group]
    files = [folder / f"checkpoint_epoch_{epoch}.pth" for epoch in range(family.epochs + 1)]
    losses = [logged[epoch]["loss"] for epoch in range(family.epochs + 1)]
    return _record(files, losses, {"optimizer_state_dict": order})
