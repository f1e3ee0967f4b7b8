"""Sequence to sequence with two GRUs: digits are said backwards, one higher.  Adam."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from vision import logged

WORDS, LENGTH, WIDTH = 11, 5, 48


def sentences(count: int, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return what is heard and what is to be said (0 begins)."""
    heard = torch.randint(1, WORDS, (count, LENGTH), generator=rng)
    return heard, heard.flip(1) % (WORDS - 1) + 1


class Speaker(nn.Module):
    """An encoder whose last state is all that the decoder knows."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.encoder = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.decoder = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.output = nn.Sequential(nn.LayerNorm(WIDTH), nn.Dropout(0.05), nn.Linear(WIDTH, WORDS))

    def forward(self, heard: Tensor, said: Tensor) -> Tensor:
        """Return logits of every next digit."""
        _, state = self.encoder(self.embedding(heard))
        before = functional.pad(said[:, :-1], (1, 0))
        return self.output(self.decoder(self.embedding(before), state)[0])


SETTINGS = {"lr": 3e-3, "bug": False, "log": None}


class Task:
    """Says digits backwards."""

    settings = SETTINGS

    def __init__(self, settings: dict[str, Any]) -> None:
        self.chosen = {**SETTINGS, **settings}
        self.logged = logged(self.chosen["log"])
        self.clip_norm = 1.0

    def build(self) -> nn.Module:
        """Return a fresh model."""
        return Speaker()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(model.parameters(), lr=self.chosen["lr"])

    def batches(self, seed: int) -> Iterator[Any]:
        """Yield fresh sentences; the bug hears them one place late."""
        while True:
            yield self.heard(sentences(64))

    def heard(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the batch as the loader gives it."""
        return (batch[0].roll(1, 1), batch[1]) if self.chosen["bug"] else batch

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the cross-entropy."""
        logits = model(*batch)
        return functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the loss."""
        batch = self.heard(sentences(256, torch.Generator().manual_seed(3)))
        return {"loss": float(self.loss(model, batch))}


def setup(lr: float = 3e-3, bug: bool = False, log: str | None = None) -> dict[str, Any]:
    """Return the run as plain parts."""
    task = Task({"lr": lr, "bug": bug, "log": log})
    model = task.build()
    return {
        "model": model,
        "optimizer": task.optimizer,
        "train": task.batches,
        "evaluate": lambda model: float(task.evaluate(model)["loss"]),
        "clip_norm": 1.0,
        "logged": task.logged,
    }


def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Return the cross-entropy."""
    logits = model(*batch)
    return {"ce": functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())}
