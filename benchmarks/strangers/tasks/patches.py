"""A vision transformer with an average of its weights in the file; AdamW under a cosine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from vision import logged

SIDE, PATCH, WIDTH, CLASSES = 16, 4, 32, 4


def scenes(count: int, rng: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return pictures of one bar each: its direction is the class, its place is asked for."""
    label = torch.randint(0, CLASSES, (count,), generator=rng)
    place = torch.rand(count, 2, generator=rng) * 0.6 + 0.2
    grid = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    angle = label * torch.pi / CLASSES
    along = (x - place[:, :1, None]) * angle.cos()[:, None, None]
    along = along + (y - place[:, 1:, None]) * angle.sin()[:, None, None]
    across = (y - place[:, 1:, None]) * angle.cos()[:, None, None]
    across = across - (x - place[:, :1, None]) * angle.sin()[:, None, None]
    bar = ((along.abs() < 0.25) & (across.abs() < 0.07)).float()
    noise = 0.5 * torch.randn(count, SIDE, SIDE, generator=rng)
    return {"image": (bar + noise)[:, None], "label": label, "place": place}


class Encoder(nn.Module):
    """Patches, positions, four blocks, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (SIDE // PATCH) ** 2, WIDTH))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                WIDTH, 4, 2 * WIDTH, 0.05, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(4)
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.where = nn.Linear(WIDTH, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and places."""
        x = self.patch_embed(image).flatten(2).mT + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.norm(x).mean(1)
        return self.head(x), self.where(x)


def terms(model: nn.Module, image: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the unweighted terms."""
    logits, place = model(image)
    return {
        "label": functional.cross_entropy(logits, batch["label"]),
        "place": functional.smooth_l1_loss(place, batch["place"], beta=0.1),
    }


WEIGHTS = {"label": 1.0, "place": 4.0}


def seen(batch: dict[str, Tensor], bug: bool) -> Tensor:
    """Return the pictures; the bug has them mirrored, and their labels not."""
    return batch["image"].flip(-1) if bug else batch["image"]


SETTINGS = {"lr": 1e-3, "bug": False, "log": None}


class Task:
    """Direction and place of a bar."""

    settings = SETTINGS

    def __init__(self, settings: dict[str, Any]) -> None:
        self.chosen = {**SETTINGS, **settings}
        self.logged = logged(self.chosen["log"])
        self.clip_norm = 1.0

    def build(self) -> nn.Module:
        """Return a fresh encoder."""
        return Encoder()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW without decay on vectors."""
        flat = [p for p in model.parameters() if p.dim() < 2]
        deep = [p for p in model.parameters() if p.dim() > 1]
        groups = [{"params": deep, "weight_decay": 0.05}, {"params": flat, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.chosen["lr"])

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return a cosine over the run."""
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000)

    def batches(self, seed: int) -> Iterator[Any]:
        """Yield fresh scenes."""
        while True:
            yield scenes(48)

    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return the unweighted terms."""
        return terms(model, seen(batch, self.chosen["bug"]), batch)

    def weights(self) -> dict[str, float]:
        """Return the weights of the terms."""
        return WEIGHTS

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the weighted loss and its terms."""
        found = self.loss(model, scenes(256, torch.Generator().manual_seed(3)))
        values = {name: float(value) for name, value in found.items()}
        return {"loss": sum(WEIGHTS[n] * v for n, v in values.items()), **values}


def setup(lr: float = 1e-3, bug: bool = False, log: str | None = None) -> dict[str, Any]:
    """Return the run as plain parts; the bug is in its data."""
    task = Task({"lr": lr, "bug": bug, "log": log})
    model = task.build()

    def shown(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**batch, "image": seen(batch, bug)}

    def train(seed: int) -> Iterator[Any]:
        return map(shown, task.batches(seed))

    return {
        "model": model,
        "optimizer": task.optimizer(model),
        "scheduler": task.scheduler,
        "train": train,
        "validation": [shown(scenes(256, torch.Generator().manual_seed(3)))],
        "weights": WEIGHTS,
        "clip_norm": 1.0,
        "logged": task.logged,
    }


def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Return the unweighted terms."""
    return terms(model, batch["image"], batch)
