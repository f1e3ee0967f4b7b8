"""Every scheduler of torch, stepped for some epochs, and the file that each epoch saves."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR

State = dict[str, Any]

BASE, OTHER = 0.1, 0.02


class Decay:
    """A function with a state, as torch saves it."""

    def __init__(self) -> None:
        self.rate = 0.97

    def __call__(self, epoch: int) -> float:
        return float(self.rate**epoch)


def _warm(optimizer: Any) -> Any:
    return schedulers.LinearLR(optimizer, 0.1, 1, 12)


BUILD: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda o: schedulers.StepLR(o, 7, 0.5),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [5, 9, 9, 30]),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.97),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, 0.3, 9),
    "LinearLR": lambda o: schedulers.LinearLR(o, 0.1, 1, 20),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 80, 2.0),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 30, 1e-5),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 10, 2, 1e-6),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, [0.2, 0.05], 70),
    "OneCycleLR linear": lambda o: schedulers.OneCycleLR(
        o, [0.2, 0.05], 70, anneal_strategy="linear", three_phase=True
    ),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, [BASE, OTHER], [0.5, 0.3], 7, 11),
    "CyclicLR triangular2": lambda o: schedulers.CyclicLR(
        o, BASE, 0.5, 9, mode="triangular2", cycle_momentum=False
    ),
    "CyclicLR exp_range": lambda o: schedulers.CyclicLR(
        o, BASE, 0.5, 9, mode="exp_range", gamma=0.99
    ),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [_warm(o), schedulers.CosineAnnealingLR(o, 40), schedulers.ExponentialLR(o, 0.9)],
        [12, 40],
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [_warm(o), schedulers.ExponentialLR(o, 0.98), schedulers.CosineAnnealingLR(o, 90)]
    ),
    "LambdaLR": lambda o: schedulers.LambdaLR(o, Decay()),
    "LambdaLR closure": lambda o: schedulers.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda epoch: 0.98),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(
        o, factor=0.5, patience=2, cooldown=1, min_lr=[1e-3, 2e-4]
    ),
    "SWALR": lambda o: SWALR(o, 0.03, 12),
}  # fmt: skip


def metric(epoch: int) -> float:
    """Return a loss that falls at first and then does not."""
    return max(1.0 - 0.05 * epoch, 0.6) + 0.001 * (epoch % 3)


def saved(name: str, epochs: int) -> list[State]:
    """Return what a run of two groups saves before training and after every epoch."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    groups = [{"params": [model.weight], "lr": BASE}, {"params": [model.bias], "lr": OTHER}]
    optimizer = torch.optim.AdamW(groups, lr=BASE)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns of its own way to start
        scheduler = BUILD[name](optimizer)
        for epoch in range(epochs + 1):
            if epoch:
                optimizer.zero_grad()
                model(torch.ones(1, 4)).sum().backward()
                optimizer.step()
                measured = [metric(epoch)] if name == "ReduceLROnPlateau" else []
                scheduler.step(*measured)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "epoch": epoch,
            }
            found.append(copy.deepcopy(state))
    return found
