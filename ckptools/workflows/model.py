"""A model that the user's own code builds: its names, shapes and parameters."""

from __future__ import annotations

from typing import Any

from ckptools.compare.relation import steps_between
from ckptools.errors import SettingsError
from ckptools.layouts.parameters.naming import identify_by_model
from ckptools.names.prefixes import strip
from ckptools.sources.user_code import FOREIGN, user_module
from ckptools.types.checkpoint import Checkpoint

Shape = tuple[int, ...]


def shapes_of_model(model: str) -> dict[str, Shape]:
    """Return the names and shapes of the model's state dict, wrapper prefixes stripped.

    Raises
    ------
    SettingsError: the model cannot be built.
    """
    state = _built(model, "state_dict")()
    _, names = strip(state)
    return {names[key]: tuple(value.shape) for key, value in state.items()}


def parameters_of_model(model: str) -> tuple[str, ...]:
    """Return the names of the parameters that need gradients, in the order of registration.

    Raises
    ------
    SettingsError: the model cannot be built.
    """
    listed = dict(_built(model, "named_parameters")())
    _, names = strip(listed)
    return tuple(names[key] for key, value in listed.items() if value.requires_grad)


def named_by_model(checkpoint: Checkpoint, model: str) -> Checkpoint:
    """Return the checkpoint with its optimizer's states named in the order of a model."""
    return identify_by_model(checkpoint, parameters_of_model(model))


def pair_named_by_model(
    older: Checkpoint, newer: Checkpoint, model: str
) -> tuple[Checkpoint, Checkpoint]:
    """Return two checkpoints of a run with their states named in the order of a model.

    The newer one's are also weighed by how they moved its weights.
    """
    names = parameters_of_model(model)
    past = older if (steps_between(older, newer) or 0) > 0 else None
    return identify_by_model(older, names), identify_by_model(newer, names, past)


def _built(model: str, method: str) -> Any:
    """Return a method of the model that ``package.module:build`` or ``file.py:build`` gives."""
    where, _, function = model.rpartition(":")
    if not where or not function:
        raise SettingsError(f"{model!r} is not of the form package.module:build")
    try:
        return getattr(getattr(user_module(where), function)(), method)
    except FOREIGN as error:
        raise SettingsError(f"cannot build the model: {error}", where=model) from error
