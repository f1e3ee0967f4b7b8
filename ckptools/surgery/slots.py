"""The optimizer's side of an operation: slots filled anew, and steps that fit them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckptools.surgery import places
from ckptools.surgery.edits import Edits
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import entries, unwrap

#: entries of a state that count the parameter's own steps
STEPS = ("step", "steps")
#: slots that a fresh optimizer does not fill with zeros, and that therefore are left out
SECOND = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "exp_inf", "variance")


def zero(
    checkpoint: Checkpoint,
    edits: Edits,
    optimizer: OptimizerState,
    state: ParameterState,
    *,
    only: tuple[str, ...] | None = None,
) -> dict[str, str]:
    """Set a parameter's slots (or only some) to zero, and its step when all of them are.

    With zero moments and a zero step, Adam's bias correction is that of a fresh parameter.
    Returns what happens to each slot, for the receipt.
    """
    done: dict[str, str] = {}
    for name, ref in state.slots.items():
        if only is None or name in only:
            edits.replace_values(ref, _zeros(ref))
            done[name] = "zero"
    if only is None:
        done |= set_step(checkpoint, edits, optimizer, state, 0)
    return done


def set_step(
    checkpoint: Checkpoint,
    edits: Edits,
    optimizer: OptimizerState,
    state: ParameterState,
    step: float,
) -> dict[str, str]:
    """Give a parameter's own step counter a value, wherever the file keeps it."""
    node = places.state_node(places.optimizer_node(checkpoint, optimizer), state)
    done: dict[str, str] = {}
    for key, value in entries(node) or []:
        if key not in STEPS:
            continue
        counter = unwrap(value)
        if isinstance(counter, TensorRef):
            edits.replace_values(counter, _full(counter, step))
        else:
            edits.set_item(node, key, type(counter)(step) if counter is not None else int(step))
        done[key] = "zero" if step == 0 else f"{step:g}"
    return done


def copy(
    checkpoint: Checkpoint,
    edits: Edits,
    to: tuple[OptimizerState, ParameterState],
    source: ParameterState,
    read: Any,
) -> dict[str, str]:
    """Give a parameter the slots and the step of another file's state of it."""
    optimizer, state = to
    done: dict[str, str] = {}
    for name, ref in state.slots.items():
        other = source.slots.get(name)
        if other is not None and other.shape == ref.shape:
            edits.replace_values(ref, lambda other=other: read(other))  # type: ignore[misc]
            done[name] = "copied"
        else:
            edits.replace_values(ref, _zeros(ref))
            done[name] = "zero"
    if source.step is not None:
        done |= set_step(checkpoint, edits, optimizer, state, source.step)
    return done


def _zeros(ref: TensorRef) -> Any:
    return lambda: np.zeros(ref.shape)


def _full(ref: TensorRef, value: float) -> Any:
    return lambda: np.full(ref.shape, value)
