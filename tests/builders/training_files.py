"""Small training checkpoints with everything that surgery must keep: ties, unknown classes, EMA."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

WIDTH = 8


class Unimportable:
    """Stands for a user's own class; pickled by name."""

    def __init__(self, note: str = "mine") -> None:
        self.note = note


class Tiny(torch.nn.Module):
    """A tied embedding, a stack of three blocks and a norm with buffers."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, WIDTH)
        layers = [
            torch.nn.ModuleDict(
                {"up": torch.nn.Linear(WIDTH, 16), "down": torch.nn.Linear(16, WIDTH)}
            )
            for _ in range(blocks)
        ]
        self.layers = torch.nn.ModuleList(layers)
        self.norm = torch.nn.BatchNorm1d(WIDTH)
        self.head = torch.nn.Linear(WIDTH, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(tokens)
        for layer in self.layers:
            hidden = hidden + layer["down"](torch.relu(layer["up"](hidden)))
        return self.head(self.norm(hidden))


def optimizer_of(model: torch.nn.Module, kind: str = "AdamW") -> torch.optim.Optimizer:
    """Two groups with names, as torch gives them to whoever passes named parameters."""
    named = list(model.named_parameters())
    matrices = [pair for pair in named if pair[1].ndim > 1]
    vectors = [pair for pair in named if pair[1].ndim == 1]
    groups = [
        {"params": matrices, "lr": 1e-3, "name": "matrices"},
        {"params": vectors, "lr": 1e-2, "name": "vectors"},
    ]
    return getattr(torch.optim, kind)(groups, lr=1e-3)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Train on random tokens."""
    model.train()
    for _ in range(steps):
        tokens = torch.randint(0, 11, (16,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens), tokens.flip(0)).backward()
        optimizer.step()


def training_file(
    path: Path,
    *,
    steps: int = 3,
    prefix: str = "module.",
    kind: str = "AdamW",
    seed: int = 0,
    blocks: int = 3,
    **options: Any,
) -> Path:
    """Write a checkpoint of a short training; ``options`` go to torch.save."""
    torch.manual_seed(seed)
    model = Tiny(blocks)
    optimizer = optimizer_of(model, kind)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=1e-6)
    average = torch.optim.swa_utils.AveragedModel(model)
    train(model, optimizer, steps)
    average.update_parameters(model)
    for _ in range(steps):
        scheduler.step()
    saved = model.state_dict()
    renamed = type(saved)((prefix + name, value) for name, value in saved.items())
    renamed._metadata = type(saved)(
        ((prefix + name).rstrip("."), value) for name, value in saved._metadata.items()
    )
    checkpoint = {
        "epoch": steps,
        "global_step": steps * 10,
        "model_state_dict": renamed,
        "ema_state_dict": average.module.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": scheduler.state_dict(),
        "rng_state": torch.get_rng_state(),
        "args": argparse.Namespace(lr=1e-3, own=Unimportable(), layers=blocks),
    }
    torch.save(checkpoint, path, **options)
    return path


def load(path: Path | str) -> Any:
    """Return what torch finds, with the file's own classes."""
    return torch.load(path, weights_only=False)


def resume(
    path: Path | str, *, blocks: int = 3, kind: str = "AdamW", prefix: str = "module."
) -> None:
    """Load strictly, model and optimizer, and train one step."""
    saved = load(path)
    model = Tiny(blocks)
    weights = saved["model_state_dict"]
    stripped = type(weights)((k.removeprefix(prefix), v) for k, v in weights.items())
    if hasattr(weights, "_metadata"):
        stripped._metadata = {
            k.removeprefix(prefix.rstrip(".")).lstrip("."): v for k, v in weights._metadata.items()
        }
    model.load_state_dict(stripped, strict=True)
    optimizer = optimizer_of(model, kind)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=1e-6)
    if "optimizer_state_dict" in saved:
        optimizer.load_state_dict(saved["optimizer_state_dict"])
    if "scheduler_state_dict" in saved:
        scheduler.load_state_dict(saved["scheduler_state_dict"])
    train(model, optimizer, 1)
    scheduler.step()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
