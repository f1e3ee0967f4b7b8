"""What is planted in a stranger's last checkpoint, and what the answer would be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.strangers.runs import Stranger

Rng = np.random.Generator


@dataclass(frozen=True)
class Patient:
    """A checkpoint as loaded, and whose it is."""

    stranger: Stranger
    state: dict[str, Any]

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its weights, by name."""
        found: dict[str, Tensor] = self.state[self.stranger.weights]
        return found

    @property
    def slots(self) -> list[dict[str, Any]]:
        """Its optimizer state, parameter by parameter."""
        return list(self.state[self.stranger.optimizer]["state"].values())

    def part(self, module: str) -> dict[str, Tensor]:
        """Return a module's floating tensors, by the rest of their names."""
        return {
            name.removeprefix(module): value
            for name, value in self.weights.items()
            if name.startswith(f"{module}.") and value.is_floating_point()
        }

    def chosen(self, rng: Rng) -> str:
        """Return a module at random."""
        return str(rng.choice(np.array(self.stranger.parts)))

    def matrices(self, module: str) -> list[Tensor]:
        """Return what a module multiplies by."""
        return [value for value in self.part(module).values() if value.dim() > 1]


Plant = Callable[[Patient, Rng], str]


def nothing(patient: Patient, rng: Rng) -> str:
    """Leave everything as it is."""
    return ""


def scaled(patient: Patient, rng: Rng) -> str:
    """All weights of a module are ten times too large."""
    module = patient.chosen(rng)
    for value in patient.part(module).values():
        value *= 10.0
    return module


def noisy(patient: Patient, rng: Rng) -> str:
    """The matrices of a module get noise of their own standard deviation."""
    module = patient.chosen(rng)
    for value in patient.matrices(module):
        noise = rng.standard_normal(tuple(value.shape)).astype(np.float32)
        value += value.std() * torch.from_numpy(noise)
    return module


def zeroed(patient: Patient, rng: Rng) -> str:
    """The matrices of a module are zero."""
    module = patient.chosen(rng)
    for value in patient.matrices(module):
        value.zero_()
    return module


def shuffled(patient: Patient, rng: Rng) -> str:
    """The largest matrix of a module is shuffled: no statistic of its values tells."""
    module = patient.chosen(rng)
    flat = max(patient.matrices(module), key=Tensor.numel).view(-1)
    flat.copy_(flat[torch.from_numpy(rng.permutation(flat.numel()))])
    return module


def swapped(patient: Patient, rng: Rng) -> str:
    """Two modules of the same shapes have changed places."""
    one, other = patient.stranger.twins or ("", "")
    there = patient.part(other)
    for rest, value in patient.part(one).items():
        kept = value.clone()
        value.copy_(there[rest])
        there[rest].copy_(kept)
    return f"{one}, {other}"


def _flip(patient: Patient, rng: Rng, bit: int) -> str:
    module = patient.chosen(rng)
    options = patient.matrices(module)
    flat = options[int(rng.integers(len(options)))].view(-1)
    usual = ((flat.abs() > 1e-3) & (flat.abs() < 1.0)).nonzero().flatten()
    flat.view(torch.int32)[usual[int(rng.integers(len(usual)))]] ^= 1 << bit
    return module


def bit_30(patient: Patient, rng: Rng) -> str:
    """One element of a module's matrix has its highest exponent bit flipped."""
    return _flip(patient, rng, 30)


def bit_3(patient: Patient, rng: Rng) -> str:
    """One element has a low bit flipped: harmless."""
    return _flip(patient, rng, 3)


def squares_zeroed(patient: Patient, rng: Rng) -> str:
    """The optimizer's squares are zero."""
    for slots in patient.slots:
        slots[str(patient.stranger.second)].zero_()
    return "optimizer"


def squares_shrunk(patient: Patient, rng: Rng) -> str:
    """The optimizer's squares are a millionth."""
    for slots in patient.slots:
        slots[str(patient.stranger.second)] *= 1e-6
    return "optimizer"


def means_shuffled(patient: Patient, rng: Rng) -> str:
    """The optimizer's mean gradients are shuffled inside every parameter."""
    for slots in patient.slots:
        flat = slots[str(patient.stranger.first)].view(-1)
        flat.copy_(flat[torch.from_numpy(rng.permutation(flat.numel()))])
    return "optimizer"


def means_scaled(patient: Patient, rng: Rng) -> str:
    """The optimizer's mean gradients are a hundred times too large."""
    for slots in patient.slots:
        slots[str(patient.stranger.first)] *= 100.0
    return "optimizer"


def rates_raised(patient: Patient, rng: Rng) -> str:
    """Learning rates are saved twenty times as large, in the schedule too."""
    for group in patient.state[patient.stranger.optimizer]["param_groups"]:
        for key in {"lr", "initial_lr"} & group.keys():
            group[key] *= 20.0
    schedule = patient.state.get("scheduler", {})
    for key in {"base_lrs", "_last_lr"} & schedule.keys():
        schedule[key] = [20.0 * rate for rate in schedule[key]]
    return "learning rates"


@dataclass(frozen=True)
class Scenario:
    """What is planted and how it is asked about.

    Attributes
    ----------
    cause: the right answer, where the damage is felt.
    suspects: patterns, ``{part}`` for a module that was not damaged.
    needs: what of a stranger the fault takes ("first", "second", "twins").
    log: whether the run's own log is given.
    worst: ask about the epoch whose loss rose most, instead of the last one.
    """

    name: str
    cause: str
    plant: Plant = nothing
    suspects: tuple[str, ...] = ()
    needs: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    log: bool = True
    worst: bool = False

    def fits(self, stranger: Stranger) -> bool:
        """Return whether the stranger has what the fault takes."""
        return not self.needs or getattr(stranger, self.needs) is not None


SCENARIOS = (
    Scenario("healthy", "none"),
    Scenario("healthy, a part suspected", "none", suspects=("{part}",)),
    Scenario("healthy, everything suspected", "none", suspects=("*",)),
    Scenario("healthy, the worst epoch", "none", worst=True),
    Scenario("module x 10", "weights", scaled, ("{part}",)),
    Scenario("noise in a module", "weights", noisy),
    Scenario("module zeroed", "weights", zeroed),
    Scenario("matrix shuffled", "weights", shuffled),
    Scenario("modules swapped", "weights", swapped, needs="twins"),
    Scenario("bit 30", "weights", bit_30),
    Scenario("bit 3", "none", bit_3),
    Scenario("squares zeroed", "optimizer", squares_zeroed, needs="second"),
    Scenario("squares x 1e-6", "optimizer", squares_shrunk, needs="second"),
    Scenario("means shuffled", "optimizer", means_shuffled, needs="first"),
    Scenario("means x 100", "optimizer", means_scaled, needs="first"),
    Scenario("learning rates x 20", "learning-rate", rates_raised),
    Scenario("data bug", "data-or-code", settings={"bug": True}),
    Scenario("data bug, no log", "none", settings={"bug": True}, log=False),
)
