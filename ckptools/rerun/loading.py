"""From a checkpoint's bytes into the task's model, optimizer and scheduler."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckptools.errors import NotComparable
from ckptools.names.prefixes import strip
from ckptools.sources.arrays import read_array
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState, WeightSet
from ckptools.types.tensor import TensorRef
from ckptools.types.wording import say

Weights = dict[str, Tensor]
#: parameters with their plain names, by parameter group
_Places = list[list[tuple[str, nn.Parameter]]]
#: settings of a parameter group that say how a step is computed, not which step it is
_IMPLEMENTATION = {"params", "fused", "foreach", "capturable", "differentiable"}
#: slots that have the shape of their parameter in every optimizer that keeps them
_FULL = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg")
#: what PEFT puts into the names of a model, and leaves out of an adapter file
_ADAPTER = (
    (re.compile(r"(\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))\.[^.]+"), r"\1"),
    (re.compile(r"\.modules_to_save\.[^.]+"), ""),
)


@dataclass(frozen=True)
class Fit:
    """What was loaded and what was not.

    Attributes
    ----------
    weights: tensors by the name that the checkpoint and the model share.
    missing: names of the model that the checkpoint lacks.
    unexpected: names of the checkpoint that the model lacks.
    mismatched: names whose shapes differ.
    frozen: names of the model that the checkpoint lacks and that the run does not train: they
        stay as the task builds them (an adapter file holds what was trained only).
    """

    weights: Weights
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Return what did not fit and what was not needed, a sentence each."""
        if not self.frozen:
            return self.problems()
        kept = say(
            "{number} frozen tensors are not in the checkpoint: as the task builds them, "
            "e.g. {name}",
            number=len(self.frozen),
            name=self.frozen[0],
        )
        return [*self.problems(), kept]

    def problems(self) -> list[str]:
        """Return what did not fit, a sentence each."""
        kinds = {
            say("missing in the checkpoint"): self.missing,
            say("unknown to the model"): self.unexpected,
            say("of another shape"): self.mismatched,
        }
        return [
            say(
                "{number} tensors {kind}, e.g. {names}",
                number=len(names),
                kind=kind,
                names=names[0],
            )
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
        raise NotComparable(
            "no weight fits the task's model",
            where=checkpoint.path,
            next=f"the model has {next(iter(wanted), 'no weights')}; see ckptools inspect --list",
        )
    held = _untied(_held(best, wanted), model)
    wanted = {name: shape for name, shape in wanted.items() if name not in tied(model)}
    absent = [name for name in wanted if name not in held]
    frozen = _left_out(model, held)
    fit = Fit(
        {name: tensor(ref) for name, ref in held.items() if wanted.get(name) == ref.shape},
        tuple(name for name in absent if name not in frozen),
        tuple(name for name in held if name not in wanted),
        tuple(name for name, ref in held.items() if wanted.get(name, ref.shape) != ref.shape),
        tuple(name for name in absent if name in frozen),
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
    return {name: tuple(value.shape) for name, value in model_state(model).items()}


def model_state(model: nn.Module) -> Weights:
    """Return the model's state by plain name; the tensors are the model's own."""
    return _by_plain_name(model.state_dict())


def _left_out(model: nn.Module, held: Mapping[str, Any]) -> set[str]:
    """Return the frozen parameters where the file holds all that learn and none of them.

    A file that holds some of them is one that should hold all.
    """
    named = _by_plain_name(dict(model.named_parameters()))
    frozen = {name for name, parameter in named.items() if not parameter.requires_grad}
    whole = all(name in held for name in named if name not in frozen)
    return frozen if whole and not frozen & held.keys() else set()


def _by_plain_name(state: Mapping[str, Any]) -> dict[str, Any]:
    names = _plain(state)
    return {names[key]: value for key, value in state.items()}


def _plain(keys: Iterable[str]) -> dict[str, str]:
    """Return the name of each key without wrapper prefixes."""
    return strip(keys)[1]


def _as_saved(name: str) -> str:
    """Return what an adapter file calls a tensor of the model."""
    for pattern, short in _ADAPTER:
        name = pattern.sub(short, name)
    return name


def tied(model: nn.Module) -> dict[str, str]:
    """Return the names under which the model shows a tensor again, each with its first name."""
    first: dict[tuple[int, int, tuple[int, ...]], str] = {}
    again: dict[str, str] = {}
    for name, value in model_state(model).items():
        if value.numel():
            place = (value.data_ptr(), value.storage_offset(), tuple(value.shape))
            if first.setdefault(place, name) != name:
                again[name] = first[place]
    return again


def _untied(held: Mapping[str, TensorRef], model: nn.Module) -> dict[str, TensorRef]:
    """Return what is held, a tied tensor under its first name only.

    Where a file holds it several times the last one counts: so does torch load it.
    """
    names = tied(model)
    found = {name: ref for name, ref in held.items() if name not in names}
    return found | {names[name]: ref for name, ref in held.items() if name in names}


def _held(weights: WeightSet, wanted: Mapping[str, Any]) -> dict[str, TensorRef]:
    """Return a weight set's tensors by the model's names."""
    short = {_as_saved(name): name for name in wanted}
    return {
        one.name if one.name in wanted else short.get(one.name, one.name): one.ref
        for one in weights.tensors
    }


def _shared(weights: WeightSet, wanted: Mapping[str, tuple[int, ...]]) -> int:
    held = _held(weights, wanted)
    return sum(wanted.get(name) == ref.shape for name, ref in held.items())


def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy ``weights`` into the model, in place."""
    state = model_state(model)
    with torch.no_grad():
        for name, value in weights.items():
            state[name].copy_(value)


@dataclass(frozen=True)
class SavedState:
    """What a checkpoint's optimizer holds, by the names of the model that the file fits.

    Attributes
    ----------
    slots: tensors and scalars by slot, for every parameter that has a state.
    groups: settings of each parameter group, with its name where it has one.
    scheduler: the state of the scheduler, or None.
    scaler: the state of the gradient scaler, or None.
    """

    slots: dict[str, dict[str, Any]]
    groups: tuple[tuple[str | None, dict[str, Any]], ...]
    scheduler: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None

    def having(self, slots: Mapping[str, Mapping[str, Any] | None]) -> SavedState:
        """Return the state with other slots for some parameters; None leaves a parameter's out."""
        kept = {name: value for name, value in self.slots.items() if name not in slots}
        given = {name: dict(value) for name, value in slots.items() if value is not None}
        return replace(self, slots=kept | given)


def read_state(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer
) -> SavedState:
    """Return the saved state: by parameter name where the file is sure of it, else by place.

    Parameters
    ----------
    model, optimizer: those of the run that wrote the file.

    Raises
    ------
    NotComparable: the file has no optimizer, or its groups are not those of the task.
    """
    places = _places(model, optimizer)
    saved = _saved_for(checkpoint, places)
    named = _named_states(saved, [[name for name, _ in group] for group in places])
    wrong = _misshapen(named, places)
    if wrong is not None:
        raise NotComparable(
            f"the saved state of {wrong} has another shape than the task's parameter",
            where=checkpoint.path,
            next="make the task's optimizer with the groups and the order of the run",
        )
    return SavedState(
        {name: _slots(one) for name, one in named.items()},
        tuple((group.name, dict(group.settings)) for group in saved.groups),
        checkpoint.run.scheduler or None,
        checkpoint.run.scaler or None,
    )


def _saved_for(checkpoint: Checkpoint, places: _Places) -> OptimizerState:
    """Return the file's optimizer whose groups are the task's: it may hold others beside it.

    Of several such the first whose states have the parameters' shapes, else the first.
    """
    if not checkpoint.optimizers:
        raise NotComparable(
            "the file holds no optimizer state",
            where=checkpoint.path,
            next="give a checkpoint with one, or an arm with optimizer=reset",
        )
    sizes = [len(group) for group in places]
    alike = [o for o in checkpoint.optimizers if [len(g.ids) for g in o.groups] == sizes]
    if not alike:
        raise NotComparable(
            "the saved parameter groups are not those of the task",
            where=checkpoint.path,
            next="make the task's optimizer as the run's was made",
        )
    names = [[name for name, _ in group] for group in places]
    fitting = (o for o in alike if _misshapen(_named_states(o, names), places) is None)
    return next(fitting, alike[0])


def _misshapen(named: Mapping[str, ParameterState], places: _Places) -> str | None:
    """Return a parameter whose saved state has another shape; None when all fit."""
    shapes = {name: tuple(p.shape) for group in places for name, p in group}
    wrong = (name for name, one in named.items() if not _has_shape(one, shapes.get(name)))
    return next(wrong, None)


def _places(model: nn.Module, optimizer: torch.optim.Optimizer) -> _Places:
    """Return the plain names of the optimizer's parameters, group by group."""
    parameters = dict(model.named_parameters())
    plain = _plain(parameters)
    name_of = {id(value): plain[key] for key, value in parameters.items()}
    found = []
    for number, group in enumerate(optimizer.param_groups):
        strange = f"parameter of group {number} that is not the model's, at place"
        found.append(
            [(name_of.get(id(p), f"{strange} {n}"), p) for n, p in enumerate(group["params"])]
        )
    return found


def _named_states(saved: OptimizerState, names: list[list[str]]) -> dict[str, ParameterState]:
    """Return the states by name: the file's own where it is sure, else the name at its place.

    Where the two contradict each other, places win: that is how torch loads.
    """
    states = [one for one in saved.states if one.has_state]
    by_place = {names[one.group][one.position]: one for one in states}
    known = {name for group in names for name in group}
    by_name = {
        one.name
        if one.standing == "sure" and one.name in known
        else names[one.group][one.position]: one
        for one in states
    }
    return by_name if len(by_name) == len(states) else by_place


def _has_shape(one: ParameterState, shape: tuple[int, ...] | None) -> bool:
    """Return whether a state's full-sized slots have the parameter's shape."""
    full = [ref for slot, ref in one.slots.items() if slot in _FULL]
    return shape is None or all(tuple(ref.shape) == shape for ref in full)


def _slots(one: ParameterState) -> dict[str, Any]:
    slots: dict[str, Any] = {slot: tensor(ref) for slot, ref in one.slots.items()}
    if one.step is not None:
        slots["step"] = torch.tensor(float(one.step))
    return slots | one.scalars


def load_state(
    saved: SavedState, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[str, ...]:
    """Load a saved state into a fresh optimizer by name; return what of it could not be used.

    Groups are matched by place where their number agrees, else by name.  A parameter without a
    saved state starts without one.
    """
    places = _places(model, optimizer)
    groups = optimizer.state_dict()["param_groups"]
    numbers = {
        name: number
        for group, members in zip(groups, places, strict=True)
        for number, (name, _) in zip(group["params"], members, strict=True)
    }
    shapes = {name: tuple(p.shape) for members in places for name, p in members}
    state = {
        numbers[name]: {slot: _copied(value) for slot, value in slots.items()}
        for name, slots in saved.slots.items()
        if name in numbers and _loadable(slots, shapes[name])
    }
    for index, group in enumerate(groups):
        settings = _settings_for(saved, index, group.get("name"), len(groups))
        group.update({k: v for k, v in settings.items() if k in group and k not in _IMPLEMENTATION})
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    left = len(saved.slots) - len(state)
    return (
        (say("the optimizer state of {left} parameters does not fit the model", left=left),)
        if left
        else ()
    )


def _copied(value: Any) -> Any:
    """Return a tensor of its own: optimizers take what they load without copying it."""
    return value.clone() if isinstance(value, Tensor) else value


def _loadable(slots: Mapping[str, Any], shape: tuple[int, ...]) -> bool:
    return all(tuple(slots[slot].shape) == shape for slot in _FULL if slot in slots)


def _settings_for(saved: SavedState, index: int, name: str | None, count: int) -> dict[str, Any]:
    """Return the saved settings of a group: of the same place, else of the same name, else none."""
    if count == len(saved.groups):
        return saved.groups[index][1]
    named = (settings for known, settings in saved.groups if name and known == name)
    return next(named, {})


def rates(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[float, ...]:
    """Return the saved learning rate of each parameter group of the task; none without a state."""
    if not checkpoint.optimizers:
        return ()
    saved = _saved_for(checkpoint, _places(model, optimizer))
    return tuple(float(group.settings["lr"]) for group in saved.groups)
