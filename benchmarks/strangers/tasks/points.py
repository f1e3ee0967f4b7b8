"""Point sets: which solid they come from and how large it is.  Adagrad, one epoch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from vision import logged

SOLIDS, POINTS = 4, 24


def solids(count: int, seed: int) -> TensorDataset:
    """Return points on spheres, cubes, cylinders and cones, with kind and size."""
    rng = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, SOLIDS, (count,), generator=rng)
    size = 0.6 + 0.8 * torch.rand(count, generator=rng)
    x = torch.randn(count, POINTS, 3, generator=rng)
    sphere = functional.normalize(x, dim=-1)
    cube = x / x.abs().amax(-1, keepdim=True)
    height = 2 * torch.rand(count, POINTS, 1, generator=rng) - 1
    ring = functional.normalize(x[..., :2], dim=-1)
    cylinder = torch.cat([ring, height], -1)
    cone = torch.cat([ring * (1 - height) / 2, height], -1)
    every = torch.stack([sphere, cube, cylinder, cone], 1)
    points = every[torch.arange(count), kind] * size[:, None, None]
    return TensorDataset(points + 0.05 * torch.randn(points.shape, generator=rng), kind, size)


def dense(*widths: int) -> nn.Sequential:
    """Return linear layers with norms and activations between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers)


class PointNet(nn.Module):
    """Every point by itself, the largest of each feature, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.local = dense(3, 32, 32)
        self.wide = dense(64, 64)
        self.trunk = dense(64, 32)
        self.kind = nn.Linear(32, SOLIDS)
        self.size = nn.Linear(32, 1)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and sizes."""
        x = self.local(points)
        x = self.wide(torch.cat([x, x.amax(1, keepdim=True).expand_as(x)], -1))
        x = self.trunk(x.amax(1))
        return self.kind(x), self.size(x)[:, 0]


def terms(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Return the unweighted terms."""
    points, kind, size = batch
    logits, guess = model(points)
    return {
        "kind": functional.cross_entropy(logits, kind),
        "size": functional.mse_loss(guess, size),
    }


WEIGHTS = {"kind": 1.0, "size": 5.0}
SETTINGS = {"lr": 0.02, "bug": False, "log": None}


def seen(data: TensorDataset, bug: bool) -> TensorDataset:
    """Return the data; the bug centres and scales every set by itself, which loses the size."""
    if not bug:
        return data
    points, kind, size = data.tensors
    points = points - points.mean(1, keepdim=True)
    return TensorDataset(points / points.norm(dim=-1).amax(1)[:, None, None], kind, size)


class Task:
    """Solids."""

    settings = SETTINGS

    def __init__(self, settings: dict[str, Any]) -> None:
        self.chosen = {**SETTINGS, **settings}
        self.logged = logged(self.chosen["log"])
        self.train = seen(solids(1280, 5), self.chosen["bug"])
        self.held = seen(solids(384, 99), self.chosen["bug"])

    def build(self) -> nn.Module:
        """Return a fresh model."""
        return PointNet()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return Adagrad."""
        return torch.optim.Adagrad(model.parameters(), lr=self.chosen["lr"])

    def batches(self, seed: int) -> Iterator[Any]:
        """Return an epoch."""
        return iter(DataLoader(self.train, batch_size=32, shuffle=True))

    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return the unweighted terms."""
        return terms(model, batch)

    def weights(self) -> dict[str, float]:
        """Return the weights of the terms."""
        return WEIGHTS

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the weighted loss and its terms."""
        values = {name: float(one) for name, one in terms(model, self.held.tensors).items()}
        return {"loss": sum(WEIGHTS[n] * v for n, v in values.items()), **values}


def setup(lr: float = 0.02, bug: bool = False, log: str | None = None) -> dict[str, Any]:
    """Return the run as plain parts."""
    task = Task({"lr": lr, "bug": bug, "log": log})
    model = task.build()
    return {
        "model": model,
        "optimizer": task.optimizer(model),
        "train": DataLoader(task.train, batch_size=32, shuffle=True),
        "validation": [task.held.tensors],
        "weights": WEIGHTS,
        "logged": task.logged,
    }


def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Return the unweighted terms."""
    return terms(model, batch)
