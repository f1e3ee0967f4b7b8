"""Forget what the optimizer remembers: all of it, of some modules, or one kind of moment."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from ckptools.errors import OperationError
from ckptools.surgery import places, slots, values
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import (
    ANY_MODULE,
    SET,
    Option,
    chosen,
    operation,
    standing_notes,
    states_of,
)
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState
from ckptools.types.plan import TensorChange
from ckptools.types.tree import Pairs
from ckptools.types.wording import say


@operation(
    "reset-optimizer",
    module=ANY_MODULE,
    set=SET,
    moments=Option(
        "Which moments to forget; with second, the first are kept and their bias correction too.",
        default="all",
        choices=("all", "first", "second"),
    ),
)
def reset_optimizer(
    checkpoint: Checkpoint,
    *,
    module: tuple[str, ...] = (),
    set: str | None = None,
    moments: str = "all",
) -> Edits:
    """Forget what the optimizer remembers; its groups and learning rates stay.

    Without a module and with all moments the whole state is left out: that works even where
    nobody knows which state belongs to which parameter, and any optimizer starts it anew.
    """
    if not checkpoint.optimizers:
        raise OperationError("holds no optimizer", where=checkpoint.path)
    whole = not module and moments == "all"
    edits = _emptied(checkpoint, set) if whole else _forgotten(checkpoint, module, set, moments)
    if not edits.changes:
        raise OperationError(
            "the optimizer remembers nothing of the kind",
            where=checkpoint.path,
            next=f"see what it holds: ckptools inspect --list {quote(checkpoint.path)}",
        )
    return edits


def _emptied(checkpoint: Checkpoint, set: str | None) -> Edits:
    """Leave out the state of every optimizer (of one weight set)."""
    edits = Edits()
    for optimizer in checkpoint.optimizers:
        if set is not None and optimizer.set != set:
            continue
        count = sum(state.has_state for state in optimizer.states)
        if not count:
            continue
        node = places.optimizer_node(checkpoint, optimizer)
        edits.replace_node(places.child(node, "state"), Pairs())
        where = f"{optimizer.key}.state"
        edits.changes.append(
            TensorChange(where, "drop", say("state of {count} parameters", count=count))
        )
    return edits


def _forgotten(
    checkpoint: Checkpoint, module: tuple[str, ...], set: str | None, moments: str
) -> Edits:
    """Forget some moments, or those of some modules."""
    edits = Edits()
    found = list(_wanted(checkpoint, module, set))
    if module:
        edits.notes += standing_notes(found)
    for optimizer, state in found:
        done = _forget(checkpoint, edits, optimizer, state, moments)
        if done:
            name = state.name or f"{optimizer.key}.state.{state.id}"
            edits.changes.append(TensorChange(name, "reset", slots=done))
    return edits


def _wanted(
    checkpoint: Checkpoint, module: tuple[str, ...], set: str | None
) -> Iterator[tuple[OptimizerState, ParameterState]]:
    if module:
        yield from states_of(checkpoint, chosen(checkpoint, module, set)).values()
        return
    for optimizer in checkpoint.optimizers:
        if set is None or optimizer.set == set:
            yield from ((optimizer, state) for state in optimizer.states if state.has_state)


def _forget(
    checkpoint: Checkpoint,
    edits: Edits,
    optimizer: OptimizerState,
    state: ParameterState,
    moments: str,
) -> dict[str, str]:
    if moments == "all":
        return slots.zero(checkpoint, edits, optimizer, state)
    if moments == "second":
        return slots.without_second(checkpoint, edits, optimizer, state)
    first = {name: ref for name, ref in state.slots.items() if name in slots.FIRST}
    for ref in first.values():
        edits.replace_values(ref, values.constant(ref, 0.0))
    return dict.fromkeys(first, "zero")
