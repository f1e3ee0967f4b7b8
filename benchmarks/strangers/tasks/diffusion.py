"""A denoising diffusion model of short waves: every loss draws its own noise and its own times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from vision import logged

LENGTH, WIDTH, TIMES = 24, 24, 50
ALPHA = torch.cumprod(1.0 - torch.linspace(1e-3, 0.15, TIMES), 0)


def waves(count: int, rng: torch.Generator | None = None) -> Tensor:
    """Return square and triangular waves."""
    time = torch.linspace(0, 1, LENGTH)
    phase = torch.rand(count, 1, generator=rng)
    pace = torch.randint(1, 4, (count, 1), generator=rng)
    saw = (pace * time + phase) % 1.0
    square = (saw > 0.5).float() * 2 - 1
    kind = torch.rand(count, 1, generator=rng) < 0.5
    return torch.where(kind, square, 4 * (saw - 0.5).abs() - 1)[:, None]


class Stage(nn.Module):
    """A convolution that knows the time, beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.shift = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the input and what is added."""
        return x + self.conv(functional.silu(self.norm(x) + self.shift(time)[:, :, None]))


class Denoiser(nn.Module):
    """Guesses the noise in a wave."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Embedding(TIMES, WIDTH), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.entry = nn.Conv1d(1, WIDTH, 3, padding=1)
        self.down = nn.ModuleList(Stage() for _ in range(2))
        self.narrow = nn.Conv1d(WIDTH, WIDTH, 4, 2, 1)
        self.middle = nn.ModuleList(Stage() for _ in range(2))
        self.widen = nn.ConvTranspose1d(WIDTH, WIDTH, 4, 2, 1)
        self.up = nn.ModuleList(Stage() for _ in range(2))
        self.exit = nn.Conv1d(WIDTH, 1, 3, padding=1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """Return the noise."""
        time = self.time(step)
        x = self.entry(x)
        for stage in self.down:
            x = stage(x, time)
        kept, x = x, self.narrow(x)
        for stage in self.middle:
            x = stage(x, time)
        x = self.widen(x) + kept
        for stage in self.up:
            x = stage(x, time)
        return self.exit(x)


SETTINGS = {"lr": 2e-3, "bug": False, "log": None}


class Task:
    """Denoising."""

    settings = SETTINGS
    clip_norm = 1.0

    def __init__(self, settings: dict[str, Any]) -> None:
        self.chosen = {**SETTINGS, **settings}
        self.logged = logged(self.chosen["log"])

    def build(self) -> nn.Module:
        """Return a fresh model."""
        return Denoiser()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW with a short memory."""
        return torch.optim.AdamW(model.parameters(), lr=self.chosen["lr"], betas=(0.9, 0.99))

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return one cycle, longer than the run."""
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, self.chosen["lr"], total_steps=800)

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Yield fresh waves; the bug forgets to scale them."""
        while True:
            yield waves(64) * (4.0 if self.chosen["bug"] else 1.0)

    def loss(self, model: nn.Module, batch: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Return how far the guessed noise is off."""
        step = torch.randint(0, TIMES, (len(batch),), generator=rng)
        noise = torch.randn(batch.shape, generator=rng)
        kept = ALPHA[step][:, None, None]
        return functional.mse_loss(
            model(kept.sqrt() * batch + (1 - kept).sqrt() * noise, step), noise
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the loss over the same waves, noise and times always."""
        rng = torch.Generator().manual_seed(4)
        held = waves(512, rng) * (4.0 if self.chosen["bug"] else 1.0)
        return {"loss": float(self.loss(model, held, rng))}


def setup(lr: float = 2e-3, bug: bool = False, log: str | None = None) -> dict[str, Any]:
    """Return the run as plain parts."""
    task = Task({"lr": lr, "bug": bug, "log": log})
    model = task.build()
    return {
        "model": model,
        "optimizer": task.optimizer(model),
        "scheduler": task.scheduler,
        "train": task.batches,
        "evaluate": task.evaluate,
        "clip_norm": 1.0,
        "logged": task.logged,
    }


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Return how far the guessed noise is off."""
    return Task({}).loss(model, batch)
