"""The optimizer's side of an operation: slots filled anew, and steps that fit them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ckptools.surgery import places, values
from ckptools.surgery.edits import Edits
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import Pairs, entries, unwrap

#: entries of a state that count the parameter's own steps
STEPS = ("step", "steps")
#: running means of the gradient
FIRST = ("exp_avg", "momentum_buffer", "grad_avg", "m")
#: running means (or sums, or maxima) of its square
SECOND = (
    "exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "exp_inf", "exp_avg_sq_row",
    "exp_avg_sq_col", "row_var", "col_var", "variance", "v",
)  # fmt: skip
#: slots that every optimizer which keeps them starts with zeros
_FROM_ZERO = frozenset({*FIRST, *SECOND, "acc_delta", "prev"})


def zero(
    checkpoint: Checkpoint, edits: Edits, optimizer: OptimizerState, state: ParameterState
) -> dict[str, str]:
    """Make a parameter's state that of a fresh one; return what happens to each slot.

    With zero moments and a zero step, Adam's bias correction is that of a fresh parameter.  What
    an optimizer does not start with zeros (Rprop's step sizes, NAdam's product) is taken out of
    the file, so that the optimizer makes it anew.
    """
    if not _FROM_ZERO.issuperset(state.slots) or state.scalars:
        return remove(checkpoint, edits, optimizer, state)
    for ref in state.slots.values():
        edits.replace_values(ref, values.constant(ref, 0.0))
    done = dict.fromkeys(state.slots, "zero")
    return done | set_step(checkpoint, edits, optimizer, state, 0)


def remove(
    checkpoint: Checkpoint, edits: Edits, optimizer: OptimizerState, state: ParameterState
) -> dict[str, str]:
    """Take a parameter's state out of the file; the optimizer starts it anew."""
    if not state.has_state:
        return {}
    node = places.child(places.optimizer_node(checkpoint, optimizer), "state")
    edits.drop_item(node, state.id)
    return dict.fromkeys((*state.slots, *state.scalars), "removed")


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
            edits.replace_values(counter, values.constant(counter, step))
        else:
            edits.set_item(node, key, type(counter)(step) if counter is not None else int(step))
        done[key] = "zero" if step == 0 else f"{step:g}"
    return done


def create(
    checkpoint: Checkpoint,
    edits: Edits,
    to: tuple[OptimizerState, ParameterState],
    donor: Checkpoint,
    given: tuple[OptimizerState, ParameterState],
) -> dict[str, str]:
    """Give a parameter without any state that of another file; {} where kinds do not agree."""
    (optimizer, state), (theirs, source) = to, given
    held = entries(places.state_node(places.optimizer_node(donor, theirs), source))
    if not held or optimizer.kind not in (theirs.kind, "unknown"):
        return {}
    pairs = [(key, _portable(value)) for key, value in held]
    if any(value is None for _, value in pairs):
        return {}
    states = places.child(places.optimizer_node(checkpoint, optimizer), "state")
    edits.set_item(states, state.id, Pairs(pairs))
    return {str(key): "created" for key, _ in pairs}


def _portable(node: object) -> object | None:
    """Return what stands for a state's entry in another file, None for what cannot be moved."""
    value = unwrap(node)
    if isinstance(value, TensorRef):
        return replace(value) if value.readable else None
    return value if isinstance(value, (bool, int, float)) else None


def copy(
    checkpoint: Checkpoint,
    edits: Edits,
    to: tuple[OptimizerState, ParameterState],
    source: ParameterState,
) -> dict[str, str]:
    """Give a parameter the slots and the step of another file's state of it."""
    optimizer, state = to
    done: dict[str, str] = {}
    for name, ref in state.slots.items():
        if name in STEPS:  # a counter that could not be read
            continue
        other = source.slots.get(name)
        if other is not None and other.shape == ref.shape:
            edits.replace_values(ref, values.of(other))
            done[name] = "copied"
        else:
            edits.replace_values(ref, values.constant(ref, 0.0))
            done[name] = "zero"
    if source.step is not None:
        done |= set_step(checkpoint, edits, optimizer, state, source.step)
    return done


def warm(edits: Edits, state: ParameterState, others: list[ParameterState]) -> dict[str, str]:
    """Fill the second moments with the mean of others' and everything else with zeros."""
    done: dict[str, str] = {}
    for name, ref in state.slots.items():
        given = [other.slots[name] for other in others if name in other.slots]
        if name in SECOND and given:
            edits.replace_values(
                ref, values.constant(ref, float(np.mean([usual(one) for one in given])))
            )
            done[name] = "mean of its siblings" if state not in others else "mean"
        else:
            edits.replace_values(ref, values.constant(ref, 0.0))
            done[name] = "zero"
    return done


def usual(ref: TensorRef) -> float:
    """Return the mean of a second moment's sound values, 0 without any."""
    total, count = 0.0, 0
    for chunk in values.chunks(ref):
        plain = chunk.astype(np.float64)
        usable = plain[np.isfinite(plain) & (plain >= 0)]
        total += float(usable.sum())
        count += usable.size
    return total / count if count else 0.0


def without_second(
    checkpoint: Checkpoint, edits: Edits, optimizer: OptimizerState, state: ParameterState
) -> dict[str, str]:
    """Start the second moments anew and keep what the first ones say.

    The step becomes 1 and the first moments are scaled by 1 - beta1: their bias-corrected values
    stay what they were, as if they came from a single step, and the second moments are estimated
    from the next gradients alone.
    """
    done: dict[str, str] = {}
    beta = first_beta(optimizer, state)
    for name, ref in state.slots.items():
        if name in SECOND:
            edits.replace_values(ref, values.constant(ref, 0.0))
            done[name] = "zero"
        elif name in FIRST and beta is not None and state.step:
            factor = (1 - beta) / (1 - beta**state.step)
            edits.replace_values(ref, values.scaled(values.of(ref), factor))
            done[name] = f"× {factor:.4g}"
    if done and beta is not None:
        done |= set_step(checkpoint, edits, optimizer, state, 1)
    return done


def first_beta(optimizer: OptimizerState, state: ParameterState) -> float | None:
    """Return beta1 of the state's group, None where it has none."""
    if not 0 <= state.group < len(optimizer.groups):
        return None
    betas = optimizer.groups[state.group].settings.get("betas")
    first = betas[0] if isinstance(betas, (list, tuple)) and betas else None
    return first if isinstance(first, float) and 0 <= first < 1 else None
