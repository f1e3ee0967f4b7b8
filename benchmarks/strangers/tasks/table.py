"""Regression of a table's column beside an autoencoder of its rows; RMSprop, one loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from vision import logged

COLUMNS, HIDDEN = 16, 4
MIXING = torch.randn(HIDDEN, COLUMNS, generator=torch.Generator().manual_seed(2))


def rows(count: int, seed: int) -> TensorDataset:
    """Return rows of sixteen columns that four causes move, and what is to be told from them."""
    rng = torch.Generator().manual_seed(seed)
    cause = torch.randn(count, HIDDEN, generator=rng)
    row = torch.tanh(cause @ MIXING) + 0.1 * torch.randn(count, COLUMNS, generator=rng)
    target = cause[:, 0] * cause[:, 1] + cause[:, 2].abs()
    return TensorDataset(row, target[:, None])


class Net(nn.Module):
    """Encoder to six numbers, decoder, regression."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(COLUMNS, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 6)
        )
        self.decoder = nn.Sequential(nn.Linear(6, 48), nn.SiLU(), nn.Linear(48, COLUMNS))
        self.regression = nn.Sequential(nn.Linear(6, 48), nn.SiLU(), nn.Linear(48, 1))

    def forward(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row again, and the estimate."""
        code = self.encoder(row)
        return self.decoder(code), self.regression(code)


def loss(model: nn.Module, batch: Any) -> Tensor:
    """Return the one loss there is."""
    row, target = batch
    again, estimate = model(row)
    return (again - row).square().mean() + (estimate - target).square().mean()


def seen(table: TensorDataset, bug: bool) -> TensorDataset:
    """Return the table; the bug reads its columns one place off."""
    row, target = table.tensors
    return TensorDataset(row.roll(1, 1), target) if bug else table


SETTINGS = {"lr": 1e-3, "bug": False, "log": None}


class Task:
    """A table."""

    settings = SETTINGS

    def __init__(self, settings: dict[str, Any]) -> None:
        self.chosen = {**SETTINGS, **settings}
        self.logged = logged(self.chosen["log"])

    def build(self) -> nn.Module:
        """Return a fresh net."""
        return Net()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return RMSprop."""
        return torch.optim.RMSprop(model.parameters(), lr=self.chosen["lr"], alpha=0.98)

    def batches(self, seed: int) -> Iterator[Any]:
        """Yield shuffled rows."""
        while True:
            yield from DataLoader(
                seen(rows(2048, 5), self.chosen["bug"]), batch_size=64, shuffle=True
            )

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the one loss there is."""
        return loss(model, batch)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the loss on unseen rows."""
        held = seen(rows(512, 99), self.chosen["bug"])
        return {"loss": float(loss(model, held.tensors))}


def setup(lr: float = 1e-3, bug: bool = False, log: str | None = None) -> dict[str, Any]:
    """Return the run as plain parts."""
    model = Net()
    return {
        "model": model,
        "optimizer": torch.optim.RMSprop(model.parameters(), lr=lr, alpha=0.98),
        "train": DataLoader(seen(rows(2048, 5), bug), batch_size=64, shuffle=True),
        "validation": DataLoader(seen(rows(512, 99), bug), batch_size=128),
        "logged": logged(log),
    }
