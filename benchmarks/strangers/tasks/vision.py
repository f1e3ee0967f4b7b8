"""A small residual network with batch normalisation: SGD with momentum, rates fall by epochs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

CLASSES, SIDE = 6, 12
SHAPES = torch.randn(CLASSES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def pictures(count: int, seed: int) -> TensorDataset:
    """Return pictures of six textures, shifted and noisy, with their class."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(0, CLASSES, (count,), generator=rng)
    shift = torch.randint(0, 4, (count,), generator=rng)
    clean = torch.stack([SHAPES[k].roll(int(s), -1) for k, s in zip(label, shift, strict=True)])
    return TensorDataset(clean + 1.6 * torch.randn(clean.shape, generator=rng), label)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and what the convolutions add to it."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(x + self.bn2(self.conv2(inner)))


class Network(nn.Module):
    """Stem, two stages, head."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width))
        self.layer1 = nn.Sequential(Block(width), Block(width))
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.layer2 = nn.Sequential(Block(2 * width), Block(2 * width))
        self.fc = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.layer2(self.down(self.layer1(functional.relu(self.stem(x)))))
        return self.fc(x.mean((-2, -1)))


def seen(x: Tensor, bug: bool) -> Tensor:
    """Return what the network is shown; the bug takes the colours in the wrong order."""
    return x[:, [2, 0, 1]] if bug else x


def logged(log: str | None) -> dict[int, dict[str, float]] | None:
    """Return the values that the run logged, by epoch."""
    if log is None:
        return None
    return {int(epoch): values for epoch, values in json.loads(Path(log).read_text()).items()}


SETTINGS = {"lr": 0.02, "bug": False, "log": None}


class Task:
    """Classification."""

    settings = SETTINGS
    by_epoch = True

    def __init__(self, settings: dict[str, Any]) -> None:
        self.chosen = {**SETTINGS, **settings}
        self.logged = logged(self.chosen["log"])
        self.validation = pictures(256, 99)

    def build(self) -> nn.Module:
        """Return a fresh network."""
        return Network()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        lr = self.chosen["lr"]
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return rates that fall every fourth epoch."""
        return torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.3)

    def batches(self, seed: int) -> Iterator[Any]:
        """Yield shuffled batches, epoch after epoch."""
        loader = DataLoader(pictures(768, 5), batch_size=32, shuffle=True)
        while True:
            yield from loader

    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"ce": functional.cross_entropy(model(seen(batch[0], self.chosen["bug"])), batch[1])}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return loss and accuracy."""
        x, y = self.validation.tensors
        logits = model(seen(x, self.chosen["bug"]))
        right = (logits.argmax(1) == y).float().mean()
        return {"loss": float(functional.cross_entropy(logits, y)), "accuracy": float(right)}


def setup(lr: float = 0.02, bug: bool = False, log: str | None = None) -> dict[str, Any]:
    """Return the run as plain parts."""
    model = Network()
    x, y = pictures(256, 99).tensors
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.3),
        "train": DataLoader(
            TensorDataset(seen(pictures(768, 5).tensors[0], bug), pictures(768, 5).tensors[1]),
            batch_size=32,
            shuffle=True,
        ),
        "validation": [(seen(x, bug), y)],
        "logged": logged(log),
    }


def loss(model: nn.Module, batch: Any) -> Tensor:
    """Return the cross-entropy."""
    return functional.cross_entropy(model(batch[0]), batch[1])
