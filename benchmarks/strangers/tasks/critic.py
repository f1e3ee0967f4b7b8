"""A generator with a critic: two models and two optimizers in one file, one of them asked about.

The file's first optimizer is the critic's.  The task is the generator's: it cleans noisy waves,
and is judged by their distance and by the critic, which is loaded from the run's own file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from vision import logged

LENGTH = 32


def waves(count: int, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return noisy waves and clean ones."""
    time = torch.linspace(0, 1, LENGTH)
    pace = 1 + 3 * torch.rand(count, 1, generator=rng)
    phase = torch.rand(count, 1, generator=rng)
    clean = torch.sin(2 * torch.pi * (pace * time + phase)) * (1 - 0.5 * time)
    noisy = clean + 0.6 * torch.randn(count, LENGTH, generator=rng)
    return noisy[:, None], clean[:, None]


class Residual(nn.Module):
    """A convolution beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.conv = nn.Conv1d(width, width, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and what is added."""
        return x + self.conv(functional.leaky_relu(self.norm(x), 0.2))


class Generator(nn.Module):
    """Cleans waves."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.entry = nn.Conv1d(1, width, 5, padding=2)
        self.body = nn.ModuleList(Residual(width) for _ in range(3))
        self.exit = nn.Conv1d(width, 1, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return clean waves."""
        x = self.entry(x)
        for block in self.body:
            x = block(x)
        return self.exit(x)


def critic() -> nn.Sequential:
    """Return a fresh critic."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 5, 2, 2),
        nn.LeakyReLU(0.2),
        nn.Conv1d(16, 16, 5, 2, 2),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(16 * LENGTH // 4, 1),
    )


SETTINGS = {"lr": 1e-3, "bug": False, "log": None, "judge": None}


class Task:
    """The generator's side."""

    settings = SETTINGS

    def __init__(self, settings: dict[str, Any]) -> None:
        self.chosen = {**SETTINGS, **settings}
        self.logged = logged(self.chosen["log"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.critic = critic()
        if self.chosen["judge"]:
            saved = torch.load(Path(self.chosen["judge"]), weights_only=True)
            self.critic.load_state_dict(saved["discriminator"])

    def build(self) -> nn.Module:
        """Return a fresh generator."""
        return Generator()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the generator's Adam."""
        return torch.optim.Adam(model.parameters(), lr=self.chosen["lr"], betas=(0.5, 0.9))

    def batches(self, seed: int) -> Iterator[Any]:
        """Yield fresh waves; the bug forgets the scale."""
        while True:
            yield self.seen(waves(32))

    def seen(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the batch as the loader gives it."""
        return (3.0 * batch[0], batch[1]) if self.chosen["bug"] else batch

    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return distance and what the critic says."""
        made = model(batch[0])
        return {
            "distance": functional.l1_loss(made, batch[1]),
            "critic": functional.softplus(-self.critic(made)).mean(),
        }

    def weights(self) -> dict[str, float]:
        """Return the weights of the terms."""
        return {"distance": 10.0, "critic": 0.1}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the weighted loss and its terms."""
        found = self.loss(model, self.seen(waves(256, torch.Generator().manual_seed(3))))
        weigh = self.weights()
        values = {name: float(value) for name, value in found.items()}
        return {"loss": sum(weigh[n] * v for n, v in values.items()), **values}


class Playing(Task):
    """Both sides, as the run itself trains them."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.other = torch.optim.Adam(self.critic.parameters(), lr=5e-4, betas=(0.5, 0.9))

    def after(self, model: nn.Module, batch: Any) -> None:
        """Take the critic's step."""
        with torch.no_grad():
            made = model(batch[0])
        self.other.zero_grad()
        real, false = self.critic(batch[1]), self.critic(made)
        (functional.softplus(-real) + functional.softplus(false)).mean().backward()
        self.other.step()

    def state(self) -> dict[str, Any]:
        """Return the critic's part of the file."""
        return {
            "discriminator": self.critic.state_dict(),
            "optimizer_d": self.other.state_dict(),
        }


_judging: list[Task] = []


def setup(
    lr: float = 1e-3, bug: bool = False, log: str | None = None, judge: str | None = None
) -> dict[str, Any]:
    """Return the run as plain parts."""
    task = Task({"lr": lr, "bug": bug, "log": log, "judge": judge})
    _judging[:] = [task]
    model = task.build()
    return {
        "model": model,
        "optimizer": task.optimizer(model),
        "train": task.batches,
        "evaluate": task.evaluate,
        "weights": task.weights(),
        "logged": task.logged,
    }


def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Return distance and what the critic says."""
    return _judging[0].loss(model, batch)
