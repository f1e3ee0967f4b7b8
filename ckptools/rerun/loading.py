"""From a checkpoint's bytes into the task's model, optimizer and scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckptools.errors import NotComparable
from ckptools.names.prefixes import strip
from ckptools.sources.arrays import read_array
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState, WeightSet
from ckptools.types.tensor import TensorRef

Weights = dict[str, Tensor]
#: settings of a parameter group that say how a step is computed, not which step it is
_IMPLEMENTATION = {"params", "fused", "foreach", "capturable", "differentiable"}


@dataclass(frozen=True)
class Fit:
    """What was loaded and what was not.

    Attributes
    ----------
    weights: tensors by the name that the checkpoint and the model share.
    missing: names of the model that the checkpoint lacks.
    unexpected: names of the checkpoint that the model lacks.
    mismatched: names whose shapes differ.
    """

    weights: Weights
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """Return what did not fit, a sentence each."""
        kinds = {
            "missing in the checkpoint": self.missing,
            "unknown to the model": self.unexpected,
            "of another shape": self.mismatched,
        }
        return [
            f"{len(names)} tensors {kind}, e.g. {names[0]}"
            for kind, names in kinds.items()
            if names
        ]


def tensor(ref: TensorRef) -> Tensor:
    """Return the values of ``ref`` as a torch tensor of the file's type."""
    array = read_array(ref)
    kind = torch.complex64 if ref.dtype == "complex32" else getattr(torch, ref.dtype)
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8).copy()
    return torch.from_numpy(flat).view(kind).reshape(ref.shape)


def read_weights(checkpoint: Checkpoint, model: nn.Module, *, lenient: bool = False) -> Fit:
    """Return the weight set that fits the model best, by the model's plain names.

    NotComparable when something does not fit and ``lenient`` is not set, or when nothing fits.
    """
    wanted = model_shapes(model)
    best = max(checkpoint.weight_sets, key=lambda one: _shared(one, wanted), default=None)
    if best is None or not _shared(best, wanted):
        raise NotComparable("no weight fits the task's model", where=checkpoint.path)
    held = {one.name: one.ref for one in best.tensors}
    fit = Fit(
        {name: tensor(ref) for name, ref in held.items() if wanted.get(name) == ref.shape},
        tuple(name for name in wanted if name not in held),
        tuple(name for name in held if name not in wanted),
        tuple(name for name, ref in held.items() if wanted.get(name, ref.shape) != ref.shape),
    )
    problems = fit.problems()
    if problems and not lenient:
        raise NotComparable(
            f"does not fit the task's model: {'; '.join(problems)}",
            where=checkpoint.path,
            next="see all with ckptools fit, or give --lenient",
        )
    return fit


def model_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the model's state by plain name."""
    return {name: tuple(value.shape) for name, value in _state(model).items()}


def _state(model: nn.Module) -> Weights:
    state = model.state_dict()
    _, names = strip(state)
    return {names[key]: value for key, value in state.items()}


def _shared(weights: WeightSet, wanted: Mapping[str, tuple[int, ...]]) -> int:
    return sum(wanted.get(one.name) == one.ref.shape for one in weights.tensors)


def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy ``weights`` into the model, in place."""
    state = _state(model)
    with torch.no_grad():
        for name, value in weights.items():
            state[name].copy_(value)


def load_optimizer(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Load the saved state into a fresh optimizer: by parameter name where known, else by place.

    NotComparable when the file has none, or when its groups are not those of the task.
    """
    saved = next(iter(checkpoint.optimizers), None)
    if saved is None:
        raise NotComparable("the file holds no optimizer state", where=checkpoint.path)
    groups = optimizer.state_dict()["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group.ids) for group in saved.groups]:
        raise NotComparable(
            "the saved parameter groups are not those of the task", where=checkpoint.path
        )
    names = _names_by_id(model, optimizer)
    state = {}
    for one in saved.states:
        if one.has_state:
            state[_index(one, names, groups)] = _slots(one)
    for group, kept in zip(groups, saved.groups, strict=True):
        group.update(
            {k: v for k, v in kept.settings.items() if k in group and k not in _IMPLEMENTATION}
        )
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _names_by_id(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Return the optimizer's own number of each parameter, by plain name."""
    parameters = dict(model.named_parameters())
    _, plain = strip(parameters)
    name_of = {id(value): plain[key] for key, value in parameters.items()}
    flat = [p for group in optimizer.param_groups for p in group["params"]]
    return {name_of[id(p)]: number for number, p in enumerate(flat) if id(p) in name_of}


def _index(one: ParameterState, numbers: Mapping[str, int], groups: list[dict[str, Any]]) -> int:
    if one.name is not None and one.name in numbers and one.standing == "sure":
        return numbers[one.name]
    return int(groups[one.group]["params"][one.position])


def _slots(one: ParameterState) -> dict[str, Any]:
    slots: dict[str, Any] = {slot: tensor(ref) for slot, ref in one.slots.items()}
    if one.step is not None:
        slots["step"] = torch.tensor(float(one.step))
    return slots | one.scalars


def rates(checkpoint: Checkpoint) -> tuple[float, ...]:
    """Return the saved learning rate of each parameter group."""
    saved: OptimizerState | None = next(iter(checkpoint.optimizers), None)
    return tuple(float(group.settings["lr"]) for group in saved.groups) if saved else ()
