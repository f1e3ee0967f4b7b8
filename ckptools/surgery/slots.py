"""The optimizer's side of an operation: slots filled anew, and steps that fit them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from ckptools.sources.memory import MemorySource
from ckptools.surgery import places, values
from ckptools.surgery.edits import Edits, view
from ckptools.surgery.overlay import encoded
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState
from ckptools.types.tensor import FLOATING, Storage, TensorRef
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
    if not _from_zero(state):
        return remove(checkpoint, edits, optimizer, state)
    for ref in state.slots.values():
        edits.replace_values(ref, values.constant(ref, 0.0))
    done = dict.fromkeys(state.slots, "zero")
    return done | set_step(checkpoint, edits, optimizer, state, 0)


def _from_zero(state: ParameterState) -> bool:
    """Return whether a state of zeros is one that the optimizer itself would start with."""
    return _FROM_ZERO.issuperset(state.slots) and not state.scalars


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
    *,
    alone: bool = True,
) -> dict[str, str]:
    """Give a parameter's own step counter a value, wherever the file keeps it.

    A counter that several parameters share (FSDP's full states) becomes the parameter's own, so
    that the others count on; without ``alone`` it is set for all of them.
    """
    root = places.optimizer_node(checkpoint, optimizer)
    node = places.state_node(root, state)
    done: dict[str, str] = {}
    for key, value in entries(node) or []:
        if key not in STEPS:
            continue
        counter = unwrap(value)
        if not isinstance(counter, TensorRef):
            edits.set_item(node, key, type(counter)(step) if counter is not None else int(step))
        elif alone and _Shared.of(root)[view(counter)] > 1:
            edits.set_item(node, key, _own(counter, step))
        else:
            edits.replace_values(counter, values.constant(counter, step))
        done[key] = "zero" if step == 0 else f"{step:g}"
    return done


class _Shared:
    """How many states of one optimizer view each counter, found once for all parameters."""

    last: tuple[object, Counter[TensorRef]] = (None, Counter())

    @classmethod
    def of(cls, optimizer: object) -> Counter[TensorRef]:
        """Return the number of users of each counter; the last answer is remembered."""
        if cls.last[0] is not optimizer:
            states = entries(places.child(optimizer, "state")) or []
            held = (pair for _, state in states for pair in entries(state) or [])
            found = (unwrap(value) for key, value in held if key in STEPS)
            views = Counter(view(ref) for ref in found if isinstance(ref, TensorRef))
            cls.last = (optimizer, views)
        return cls.last[1]


def _own(counter: TensorRef, step: float) -> TensorRef:
    """Return a counter like ``counter`` with memory of its own."""
    assert counter.storage is not None
    order = counter.storage.byteorder
    chunks = encoded(counter, values.constant(counter, step), order)
    data = b"".join(chunk.tobytes() for chunk in chunks)
    storage = Storage("step", MemorySource("a counter", data), 0, len(data), len(data), order)
    return TensorRef(counter.dtype, counter.shape, counter.strides, 0, storage)


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


def warm(
    checkpoint: Checkpoint,
    edits: Edits,
    optimizer: OptimizerState,
    state: ParameterState,
    others: list[ParameterState],
) -> dict[str, str]:
    """Fill the second moments with the mean of others' and everything else with zeros.

    The step becomes theirs.  What :func:`zero` takes out of the file is taken out here, too.
    """
    if not _from_zero(state):
        return remove(checkpoint, edits, optimizer, state)
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
    steps = [other.step for other in others if other.step is not None]
    if steps:
        done |= set_step(checkpoint, edits, optimizer, state, max(steps))
    return done


def mix(
    checkpoint: Checkpoint,
    edits: Edits,
    to: tuple[OptimizerState, ParameterState],
    other: ParameterState,
    shares: tuple[float, float],
) -> dict[str, str]:
    """Mix the slots that both have, each times its share; others become zero, and steps stay.

    Numbers that stand for others (eight-bit states) have no mean: such a state starts anew.
    """
    optimizer, state = to
    if not FLOATING.issuperset(ref.dtype for ref in state.slots.values()):
        return zero(checkpoint, edits, optimizer, state)
    done = {}
    for name, ref in state.slots.items():
        given = other.slots.get(name)
        if given is not None and given.shape == ref.shape:
            own, theirs = shares
            edits.replace_values(ref, values.mixed(values.of(ref), own, values.of(given), theirs))
            done[name] = "blend"
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
