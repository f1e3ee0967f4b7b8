"""Runs that never were: a bowl whose bottom the run has reached, and two checkpoints of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckptools.rerun.task import HeldTask

TERMS = ("cls", "pts", "dir")


@dataclass(frozen=True)
class Design:
    """A run that is simulated.

    Attributes
    ----------
    layers: blocks of each of two stacks; two modules stand beside them.
    width: parameters of a module.
    batch, validation: how many samples.
    noise: standard deviation of what a sample adds to the gradient of a parameter.
    spread: distance of a parameter from the bottom, where curvature is 1.
    kept: correlation of a module between the two checkpoints.
    rate: learning rate, in spreads.
    adam: else SGD with momentum.
    seed: of everything that is drawn.
    """

    layers: int
    width: int
    batch: int
    validation: int
    noise: float
    spread: float
    kept: float
    rate: float
    adam: bool
    seed: int


def drawn(rng: np.random.Generator) -> Design:
    """Draw a run; exchanging a healthy module moves its loss by a hundredth or two."""
    return Design(
        layers=int(rng.integers(2, 7)),
        width=int(rng.choice([8, 16, 64])),
        batch=int(rng.choice([8, 16, 32])),
        validation=int(rng.choice([64, 256, 1024])),
        noise=float(rng.uniform(0.2, 1.0)),
        spread=float(rng.uniform(0.02, 0.06)),
        kept=float(rng.uniform(0.3, 0.99)),
        rate=float(rng.uniform(0.005, 0.05)),
        adam=bool(rng.random() < 0.7),
        seed=int(rng.integers(2**31)),
    )


class Module(nn.Module):
    """The values of one module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, width))


class Bowl(nn.Module):
    """Two stacks of modules and one on either side; the log loss is a bowl in all their values."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        count, width = design.layers, design.width
        self.embed, self.head = Module(width), Module(width)
        for name in ("encoder", "decoder"):
            layers = nn.ModuleList(Module(width) for _ in range(count))
            self.add_module(name, nn.ModuleDict({"layers": layers}))
        draws = torch.Generator().manual_seed(design.seed)
        bottom = 0.5 * torch.randn((2 * count + 2, width), generator=draws)
        self.register_buffer("bottom", bottom, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the log loss of every sample (samples x modules x width)."""
        off = torch.cat(list(self.parameters())) - self.bottom
        return (x * off).sum((1, 2)) + 0.5 * off.square().sum()


class Simulated:
    """The task: three terms, each with a noise of its own."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.count = 2 * design.layers + 2
        self.modules = [name.removesuffix(".weight") for name in Bowl(design).state_dict()]

    def build(self) -> nn.Module:
        """Return a model somewhere far from the bottom."""
        return Bowl(self.design)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the run."""
        rate = self.design.rate * self.design.spread
        if self.design.adam:
            return torch.optim.Adam(model.parameters(), lr=rate)
        return torch.optim.SGD(model.parameters(), lr=self.design.rate / 10.0, momentum=0.9)

    def samples(self, count: int) -> list[Tensor]:
        """Return noise for each term, from the global generator."""
        shape = (count, self.count, self.design.width)
        return [self.design.noise * torch.randn(shape) for _ in TERMS]

    def batches(self, seed: int) -> Iterator[list[Tensor]]:
        """Yield the noise of batches."""
        while True:
            yield self.samples(self.design.batch)

    def loss(self, model: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        """Return the terms."""
        each = torch.exp(model(torch.cat(batch)).clamp(max=80.0)).chunk(len(TERMS))
        return {name: values.mean() for name, values in zip(TERMS, each, strict=True)}

    def weights(self) -> dict[str, float]:
        """Return the terms' weights."""
        return {"cls": 2.0, "pts": 5.0, "dir": 0.25}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the loss on a validation set of its own."""
        generator = torch.get_rng_state()
        torch.manual_seed(self.design.seed + 1)
        terms = self.loss(model, self.samples(self.design.validation))
        torch.set_rng_state(generator)
        return {"loss": sum(self.weights()[n] * float(value) for n, value in terms.items())}


State = dict[str, Tensor]
Change = Callable[[Design, State, dict[str, Any], np.random.Generator], str]


def run_of(design: Design, folder: Path, change: Change) -> tuple[HeldTask, list[Path], str]:
    """Write two checkpoints of a run, the later one changed; return what was changed."""
    rng = np.random.default_rng(design.seed)
    task = HeldTask(Simulated(design), "simulated:Simulated")
    with torch.random.fork_rng():
        torch.manual_seed(design.seed)
        model = task.build()
        names = list(model.state_dict())
        shape = (len(names), 1, design.width)
        first = design.spread * rng.standard_normal(shape)
        fresh = design.spread * rng.standard_normal(shape)
        later = design.kept * first + math.sqrt(1.0 - design.kept**2) * fresh
    paths, target = [], ""
    for number, values in enumerate((first, later)):
        off = [torch.tensor(value, dtype=torch.float32) for value in values]
        weights = {n: b + o for n, b, o in zip(names, model.bottom[:, None], off, strict=True)}
        optimizer = task.optimizer(model)
        optimizer.load_state_dict(_state(design, optimizer.state_dict(), rng))
        state = optimizer.state_dict()
        if number:
            target = change(design, weights, state, rng)
        paths.append(folder / f"checkpoint_{number}.pth")
        torch.save({"model": weights, "optimizer": state, "epoch": number, "step": 1000}, paths[-1])
    return task, paths, target


def _state(design: Design, empty: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return the optimizer state of a run that has been at the bottom for long."""
    weights = np.array([2.0, 5.0, 0.25])
    sd = design.noise * math.sqrt(float((weights**2).sum()) / design.batch)
    shape = (1, design.width)
    state = {}
    for index in range(2 * design.layers + 2):
        mean = torch.tensor(sd * 0.23 * rng.standard_normal(shape), dtype=torch.float32)
        if design.adam:
            square = torch.full(shape, sd**2)
            state[index] = {"step": torch.tensor(1000.0), "exp_avg": mean, "exp_avg_sq": square}
        else:
            state[index] = {"momentum_buffer": mean * 10.0}
    return {**empty, "state": state}


# -- what is done to the later checkpoint --------------------------------------------------------


def healthy(design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator) -> str:
    """Do nothing."""
    return ""


def _push(design: Design, weights: State, names: list[str], rng: np.random.Generator) -> None:
    """Move modules away from the bottom until the loss is larger by a drawn part."""
    size = math.log(1.0 + float(np.exp(rng.uniform(math.log(0.15), math.log(3.0)))))
    length = math.sqrt(2.0 * size / (len(names) * (1.0 + design.noise**2)))
    for name in names:
        direction = rng.standard_normal(weights[name].shape)
        direction *= length / np.linalg.norm(direction)
        weights[name] += torch.tensor(direction, dtype=torch.float32)


def everywhere(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Move all modules alike: no one of them is to blame."""
    _push(design, weights, list(weights), rng)
    return ""


def one_module(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Move one module."""
    name = str(rng.choice(list(weights)))
    _push(design, weights, [name], rng)
    return name.removesuffix(".weight")


def two_modules(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Move two modules alike."""
    names = sorted(map(str, rng.choice(list(weights), 2, replace=False)))
    _push(design, weights, names, rng)
    return ", ".join(name.removesuffix(".weight") for name in names)


def raised_rates(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Save a learning rate that no run bears."""
    for group in state["param_groups"]:
        group["lr"] *= 1000.0
    return ""


def broken_state(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Blow the first moments up."""
    slot = "exp_avg" if design.adam else "momentum_buffer"
    for slots in state["state"].values():
        slots[slot] = slots[slot] * 300.0
    return ""
