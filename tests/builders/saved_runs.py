"""Training checkpoints written by torch, as many frameworks arrange them."""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn


def network() -> nn.Module:
    """Two equal blocks with a norm, an embedding before and a head after."""
    torch.manual_seed(0)
    block = lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 8))  # noqa: E731
    parts = {"embed": nn.Linear(4, 8), "layers": nn.ModuleList([block(), block()])}
    return nn.ModuleDict({**parts, "head": nn.Linear(8, 3)})


def output(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = model["embed"](x)
    for block in model["layers"]:
        x = x + block(x)
    return model["head"](x)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        output(model, torch.randn(16, 4)).square().mean().backward()
        optimizer.step()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW with two groups, as most trainers split them."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3)


def training_dict(**more: Any) -> dict[str, Any]:
    """The user's kind of checkpoint, after three steps."""
    model = network()
    optimizer = adamw(model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    trained(model, optimizer)
    return {
        "epoch": 12,
        "model_state_dict": {f"module.{key}": one for key, one in model.state_dict().items()},
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": {
            "scale": 65536.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 2000,
            "_growth_tracker": 3,
        },
        "args": argparse.Namespace(lr=1e-3, grad_clip=35.0, layers=[1, 2], name="车道"),
        **more,
    }


@contextmanager
def foreign(module: str, **classes: type) -> Iterator[None]:
    """Pretend that ``module`` exists with these classes, so that their objects can be saved."""
    held = types.ModuleType(module)
    names = module.split(".")
    before = {
        ".".join(names[: i + 1]): sys.modules.get(".".join(names[: i + 1]))
        for i in range(len(names))
    }
    for name in before:
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules[module] = held
    for name, one in classes.items():
        one.__module__, one.__qualname__, one.__name__ = module, name, name
        setattr(held, name, one)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old


def saved(value: Any, path: Path) -> str:
    torch.save(value, path)
    return str(path)
