"""Checkpoints taken apart for planting: weights and optimizer states by the true names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.diagnosis.training import RECORD
from ckptools.names.stacks import Place, places

State = dict[str, Any]
#: Where the weights lie in the files of the zoo.
_SETS = ("model", "model_state_dict", "generator", "discriminator")


@dataclass(frozen=True)
class Patient:
    """A loaded checkpoint; tensors are the file's own, so damage is done in place.

    Attributes
    ----------
    state: what is saved.
    weights: by name without prefix; ``set:name`` where the file holds several models.
    slots: optimizer state by the same names.
    ids: where each state lies: (key of the optimizer, its number there).
    optimizers: the saved optimizers by key.
    earlier: the epochs before, nearest first.
    """

    state: State
    weights: dict[str, Tensor]
    slots: dict[str, State]
    ids: dict[str, tuple[str, int]]
    optimizers: dict[str, State]
    earlier: tuple[Patient, ...] = ()
    stacks: Mapping[str, Place] = field(default_factory=dict)

    def matrices(self) -> list[str]:
        """Return the trained floating matrices (or kernels) of at least 64 elements."""
        return [
            name
            for name, value in self.weights.items()
            if value.ndim > 1
            and value.numel() >= 64
            and value.is_floating_point()
            and name in self.ids
        ]

    def blocks(self) -> dict[str, list[str]]:
        """Return the names of every block of a stack, by the block's own name."""
        found: dict[str, list[str]] = {}
        for name, place in self.stacks.items():
            if place.block is not None and self.weights[name].is_floating_point():
                found.setdefault(place.module, []).append(name)
        return found

    def place(self, name: str) -> tuple[str, ...]:
        """Return what a finding about the optimizer's state of ``name`` may call it."""
        key, number = self.ids[name]
        return (name, f"{key}.state[{number}]")


def load(path: Path) -> State:
    """Return what torch finds in a file of the zoo."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    return state


def read(path: Path, earlier: tuple[Path, ...] = ()) -> Patient:
    """Return the patient in a run's folder, with earlier epochs to take things from."""
    return take_apart(
        load(path),
        json.loads((path.parent / RECORD).read_text("utf-8"))["order"],
        tuple(read(one) for one in earlier),
    )


def take_apart(
    state: State, order: dict[str, list[str]], earlier: tuple[Patient, ...] = ()
) -> Patient:
    """Return a loaded state as a patient; ``order`` names each optimizer's parameters in turn."""
    weights = _weights(state)
    slots, ids = {}, {}
    for key, names in order.items():
        for number, name in enumerate(names):
            ids[name] = (key, number)
            if number in state[key]["state"]:
                slots[name] = state[key]["state"][number]
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    optimizers = {key: state[key] for key in order}
    return Patient(state, weights, slots, ids, optimizers, earlier, places(weights, shapes))


def _weights(state: State) -> dict[str, Tensor]:
    sets = [key for key in _SETS if key in state]
    alone = len(sets) == 1
    return {
        name.removeprefix("module.") if alone else f"{key}:{name}": value
        for key in sets
        for name, value in state[key].items()
    }
