"""A small AdamW run with two parameter groups, saved epoch by epoch, and faults to plant in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

State = dict[str, Any]
EPOCHS, STEPS = 5, 12


class Net(nn.Module):
    """Token embedding, three residual blocks, head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(24, 16)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(16),
                    "fc1": nn.Linear(16, 32),
                    "fc2": nn.Linear(32, 16),
                }
            )
            for _ in range(3)
        )
        self.proj = nn.Linear(16, 16)
        self.head = nn.Linear(16, 24)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block["fc2"](torch.relu(block["fc1"](block["norm"](x))))
        return self.head(self.proj(x))


def train(folder: Path, *, seed: int = 0, epochs: int = EPOCHS, steps: int = STEPS) -> list[Path]:
    """Train and return the checkpoints, the one before training first."""
    torch.manual_seed(seed)
    model = Net()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * steps * 2)
    rule = torch.randperm(24)
    saved = [_save(folder, 0, 0, model, optimizer, scheduler)]
    for epoch in range(1, epochs + 1):
        for _ in range(steps):
            tokens = torch.randint(0, 24, (8, 6))
            loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), rule[tokens].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        saved.append(_save(folder, epoch, epoch * steps, model, optimizer, scheduler))
    return saved


def _save(folder: Path, epoch: int, step: int, model: Net, optimizer: Any, scheduler: Any) -> Path:
    path = folder / f"checkpoint_epoch_{epoch}.pth"
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": epoch,
        "global_step": step,
        "args": {"lr": 3e-3, "steps": STEPS},
    }
    torch.save(copy.deepcopy(state), path)
    return path


def planted(source: Path, target: Path, fault: Callable[[State], None]) -> Path:
    """Write a copy of a checkpoint with a fault in it."""
    state = torch.load(source, weights_only=True)
    fault(state)
    torch.save(state, target)
    return target


def position(state: State, name: str) -> int:
    """Return the optimizer's index of a parameter: matrices first, then vectors."""
    names = [key for key, value in state["model"].items() if value.ndim > 1]
    names += [key for key, value in state["model"].items() if value.ndim == 1]
    return names.index(name)


def slots(state: State, name: str) -> dict[str, torch.Tensor]:
    """Return the optimizer's state of a parameter."""
    found: dict[str, torch.Tensor] = state["optimizer"]["state"][position(state, name)]
    return found
