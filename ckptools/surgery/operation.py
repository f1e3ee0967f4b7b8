"""What an operation is, and how one is registered and found.

An operation is a function that plans: it looks at a checkpoint, fills an :class:`Edits` and
writes nothing.  Its keyword parameters are its options; their names, defaults and the help in
``options`` make the command line, so a new operation is one new file.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ckptools.errors import NoSuchTensor, OperationError
from ckptools.layouts.parameters.naming import identify
from ckptools.layouts.parameters.problem import parameter_shape
from ckptools.names import patterns
from ckptools.registry import Registry
from ckptools.surgery.edits import Edits
from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState, ParameterState

Plan = Callable[..., Edits]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an operation.

    Attributes
    ----------
    help: one sentence.
    kind: str, int or float; "flag" for a switch, "path" for a checkpoint.
    default: None where it may be left out.
    choices: the words it takes, where there are only some.
    required: whether it must be given.
    multiple: whether it may be given several times.
    """

    help: str
    kind: Any = str
    default: Any = None
    choices: tuple[str, ...] = ()
    required: bool = False
    multiple: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation: its name, its plan, and its options.

    ``mends`` are the kinds of container faults that it is for; others make surgery refuse.
    """

    name: str
    plan: Plan
    options: Mapping[str, Option]
    mends: frozenset[str] = frozenset()

    @property
    def help(self) -> str:
        """The docstring of the plan."""
        return self.plan.__doc__ or ""


operations: Registry[Operation] = Registry(
    "operation", package="ckptools.surgery.operations", group="ckptools.operations"
)

MODULE = Option(
    "Module or tensor: a name (with everything under it), a glob, or re:REGEX; repeatable.",
    required=True,
    multiple=True,
)
ANY_MODULE = Option("As for other operations; everything when left out.", multiple=True)
FROM = Option("Another checkpoint of the same model.", kind="path")
SEED = Option("Seed of the random numbers.", kind=int, default=0)
SET = Option("Weight set, where the file has several.")


def operation(name: str, mends: Iterable[str] = (), **options: Option) -> Callable[[Plan], Plan]:
    """Register a planning function ``plan(checkpoint, **options) -> Edits`` under ``name``."""

    def add(plan: Plan) -> Plan:
        if not plan.__doc__:
            raise ValueError(f"operation {name} has no docstring")
        operations.add(name, Operation(name, plan, options, frozenset(mends)))
        return plan

    return add


def chosen(
    checkpoint: Checkpoint, module: Iterable[str], set: str | None = None
) -> list[NamedTensor]:
    """Return the tensors that any of some patterns selects, in file order.

    Without ``set`` they are taken from the only weight set, or from ``model`` of several; no
    pattern at all selects everything.

    Raises
    ------
    NoSuchTensor: a pattern matches nothing; the nearest names are given.
    OperationError: there are several weight sets and none was named.
    """
    tensors = {tensor.name: tensor for tensor in weight_set(checkpoint, set)}
    if not module:
        return list(tensors.values())
    try:
        names = {name for pattern in module for name in patterns.select(pattern, tensors)}
    except NoSuchTensor as error:
        near = error.next or f"see its names: {shlex.join(_listing(checkpoint.path))}"
        raise NoSuchTensor(error.message, where=checkpoint.path, next=near) from None
    return [tensor for name, tensor in tensors.items() if name in names]


def _listing(path: str) -> tuple[str, ...]:
    return "ckptools", "inspect", "--list", path


def weight_set(checkpoint: Checkpoint, name: str | None) -> tuple[NamedTensor, ...]:
    """Return the tensors of a weight set, by name or the only one."""
    sets = {weights.name: weights.tensors for weights in checkpoint.weight_sets}
    if not sets:
        raise NoSuchTensor("holds no weights", where=checkpoint.path)
    if name is None and (len(sets) == 1 or "model" in sets):
        name = "model" if "model" in sets else next(iter(sets))
    if name not in sets:
        raise OperationError(
            f"has no weight set {name!r}" if name else "has several weight sets",
            where=checkpoint.path,
            next=f"name one with --set: {', '.join(sets)}",
        )
    return sets[name]


def states_of(
    checkpoint: Checkpoint, tensors: Iterable[NamedTensor]
) -> dict[str, tuple[OptimizerState, ParameterState]]:
    """Return the optimizer state of each tensor that has one, by name.

    Raises OperationError when a state without a name may belong to a tensor that has none.
    """
    wanted = {(tensor.set, tensor.name): tensor for tensor in tensors}
    found: dict[str, tuple[OptimizerState, ParameterState]] = {}
    for optimizer in _named(checkpoint, {set for set, _ in wanted}):
        lone = dict(wanted)
        for state in optimizer.states:
            key = (optimizer.set or "", state.name or "")
            if key in wanted:
                found[key[1]] = (optimizer, state)
                lone.pop(key, None)
        shapes = {tensor.ref.shape for tensor in lone.values() if tensor.kind == "parameter"}
        nameless = [s for s in optimizer.states if s.name is None and s.has_state]
        if any(_may_be_of(state, shapes) for state in nameless):
            raise _unknown(checkpoint, optimizer, len(nameless))
    return found


def _may_be_of(state: ParameterState, shapes: set[tuple[int, ...]]) -> bool:
    """Return whether a state may belong to a parameter of one of these shapes."""
    shape = parameter_shape(state)
    return bool(shapes) if shape is None else shape in shapes


def optimizers_of(
    checkpoint: Checkpoint, sets: Iterable[str], *, stateless: bool = False
) -> list[OptimizerState]:
    """Return the optimizers that train some weight sets, every state with its name.

    States that could not be named from headers alone are named with the values read.

    Raises OperationError when a state (with ``stateless`` also a parameter without any) still has
    no name.
    """
    wanted = _named(checkpoint, sets, stateless=stateless)
    for optimizer in wanted:
        if nameless := _nameless(optimizer, stateless):
            raise _unknown(checkpoint, optimizer, nameless)
    return wanted


def _named(
    checkpoint: Checkpoint, sets: Iterable[str], *, stateless: bool = False
) -> list[OptimizerState]:
    """Return the optimizers that train some weight sets, named as well as can be."""
    known = set(sets)
    wanted = [one for one in checkpoint.optimizers if one.set is None or one.set in known]
    if any(_nameless(one, stateless) for one in wanted):
        checkpoint = identify(checkpoint)
        wanted = [one for one in checkpoint.optimizers if one.set is None or one.set in known]
    return wanted


def _unknown(checkpoint: Checkpoint, optimizer: OptimizerState, nameless: int) -> OperationError:
    return OperationError(
        f"{nameless} of {len(optimizer.states)} optimizer states have no name, "
        "so it is unknown which belong to the module",
        where=f"{checkpoint.path}: {optimizer.key}",
        next="pass --optimizer keep, or give the optimizer up first: "
        + shlex.join(("ckptools", "reset-optimizer", checkpoint.path)),
    )


def _nameless(optimizer: OptimizerState, stateless: bool) -> int:
    return sum(s.name is None and (s.has_state or stateless) for s in optimizer.states)


def standing_notes(states: Iterable[tuple[OptimizerState, ParameterState]]) -> list[str]:
    """Return sentences about states whose names are not sure."""
    by_standing: dict[str, list[str]] = {}
    for _, state in states:
        by_standing.setdefault(state.standing, []).append(str(state.name))
    return [
        f"The optimizer states of {_listed(by_standing[standing])} {words}"
        for standing, words in _STANDINGS.items()
        if standing in by_standing
    ]


_STANDINGS = {
    "by_order": "were found by their order in the file, not by a proof of each.",
    "ambiguous": "are ambiguous: they may belong to other parameters of the same shape.",
}


def _listed(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
