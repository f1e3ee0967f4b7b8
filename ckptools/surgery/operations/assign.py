"""Give saved settings other values: learning rates, betas, weight decay, epoch, step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ckptools.errors import InvalidParameter, OperationError
from ckptools.layouts.run_state import EPOCHS, STEPS
from ckptools.layouts.scalars import number
from ckptools.surgery import places, schedules, slots
from ckptools.surgery.counters import counters, put, scale_numbers
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import Option, operation
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterGroup
from ckptools.types.plan import TensorChange
from ckptools.types.tree import unwrap
from ckptools.types.wording import say

#: JSON files of a trainer's folder that count
_COUNTING = ("trainer_state.json",)
_GROUP = "Group by name or number, as inspect shows it; all when left out; repeatable."


@operation(
    "assign",
    group=Option(_GROUP, multiple=True),
    lr=Option("Learning rate: a number, or a factor such as x0.1."),
    betas=Option("Two numbers, e.g. 0.9,0.95."),
    eps=Option("Adam's epsilon.", kind=float),
    weight_decay=Option("Weight decay.", kind=float),
    momentum=Option("SGD's momentum.", kind=float),
    epoch=Option("Epoch counter of the run.", kind=int),
    step=Option("Step counter of the run and of every optimizer state.", kind=int),
    schedule=Option(
        "Whether a saved schedule is scaled with the learning rate, so that it does not undo it.",
        default="scale",
        choices=("scale", "keep"),
    ),
)
def assign(
    checkpoint: Checkpoint,
    *,
    group: tuple[str, ...] = (),
    lr: str | None = None,
    betas: str | None = None,
    eps: float | None = None,
    weight_decay: float | None = None,
    momentum: float | None = None,
    epoch: int | None = None,
    step: int | None = None,
    schedule: str = "scale",
) -> Edits:
    """Give saved settings other values, as a resumed run will read them.

    A scheduler computes rates from its own base rates: they are scaled by the same factor, else
    its next step would undo the assignment.
    """
    edits = Edits()
    given = {"eps": eps, "weight_decay": weight_decay, "momentum": momentum}
    numbers = {key: value for key, value in given.items() if value is not None}
    _require_usable({**numbers, "epoch": epoch or 0, "step": step or 0})
    if lr is not None or betas is not None or numbers:
        groups = _groups(checkpoint, group)
        for optimizer, one in groups:
            for key, value in numbers.items():
                _set(checkpoint, edits, optimizer, one, key, value)
            if betas is not None:
                _set(checkpoint, edits, optimizer, one, "betas", _two(betas))
        if lr is not None:
            _rates(checkpoint, edits, groups, str(lr), schedule == "scale")
    if epoch is not None:
        _count(checkpoint, edits, EPOCHS, epoch, "epoch")
    if step is not None:
        _steps(checkpoint, edits, step)
    if not edits.changes:
        raise InvalidParameter("nothing is assigned", next="ckptools assign --help")
    return edits


def _require_usable(values: dict[str, float]) -> None:
    """Raise InvalidParameter for what no optimizer and no counter takes."""
    wrong = [f"{key} is {value:g}" for key, value in values.items() if not 0 <= value < math.inf]
    if wrong:
        raise InvalidParameter("; ".join(wrong), next="choose a number from 0 on")


_Group = tuple[OptimizerState, ParameterGroup]


def _groups(checkpoint: Checkpoint, wanted: tuple[str, ...]) -> list[_Group]:
    """Return the groups of these names or numbers, or all."""
    every = [(optimizer, one) for optimizer in checkpoint.optimizers for one in optimizer.groups]
    if not every:
        raise OperationError("holds no optimizer", where=checkpoint.path)
    chosen = [pair for pair in every if not wanted or _called(pair[1]) & set(wanted)]
    known = {name for _, one in every for name in _called(one)}
    missing = [name for name in wanted if name not in known]
    if missing:
        listed = ", ".join(one.name or str(one.index) for _, one in every)
        raise OperationError(
            f"has no group {', '.join(missing)}", where=checkpoint.path, next=f"groups: {listed}"
        )
    return chosen


def _called(group: ParameterGroup) -> set[str]:
    return {str(group.index)} | ({group.name} if group.name else set())


def _two(text: str) -> tuple[float, float]:
    try:
        first, second = (float(word) for word in str(text).strip("()[] ").split(","))
    except ValueError:
        raise InvalidParameter(
            f"betas {text!r} are not two numbers", next="e.g. 0.9,0.999"
        ) from None
    if not (0 <= first < 1 and 0 <= second < 1):
        raise InvalidParameter(f"betas {text!r} are not below 1", next="e.g. 0.9,0.999")
    return first, second


def _place(optimizer: OptimizerState, group: ParameterGroup, key: str) -> str:
    return f"{optimizer.key}.param_groups.{group.index}.{key}"


def _node(checkpoint: Checkpoint, optimizer: OptimizerState, group: ParameterGroup) -> Any:
    return places.group_node(places.optimizer_node(checkpoint, optimizer), group.index)


def _set(
    checkpoint: Checkpoint,
    edits: Edits,
    optimizer: OptimizerState,
    group: ParameterGroup,
    key: str,
    value: Any,
) -> None:
    """Set one entry of a group that the group has."""
    node = _node(checkpoint, optimizer, group)
    if key not in group.settings:
        raise OperationError(
            f"{optimizer.kind} has no {key}",
            where=f"{checkpoint.path}: {optimizer.key}",
            next=f"its groups hold: {', '.join(group.settings)}",
        )
    if isinstance(value, tuple):
        old = unwrap(places.child(node, key))
        edits.set_item(node, key, list(value) if isinstance(old, list) else value)
        words = f"{group.settings[key]} → {value}"
    else:
        words = put(edits, node, key, value)
    edits.changes.append(TensorChange(_place(optimizer, group, key), "assign", words))


def _rates(
    checkpoint: Checkpoint, edits: Edits, groups: list[_Group], text: str, scale: bool
) -> None:
    """Set learning rates, and scale what their schedules start from."""
    factors: dict[tuple[str, int], float] = {}
    for optimizer, one in groups:
        old = number(one.settings.get("lr"))
        new = _rate(text, old)
        _set(checkpoint, edits, optimizer, one, "lr", new)
        if not scale:
            continue
        if not old:
            edits.notes.append(
                say(
                    "The rate of {place} was zero, so its schedule was not scaled: a "
                    "scheduler may undo the assignment at its next step.",
                    place=_place(optimizer, one, "lr"),
                )
            )
            continue
        factors[optimizer.key, one.index] = new / old
        node = _node(checkpoint, optimizer, one)
        for key in schedules.OF_GROUP:
            if scale_numbers(edits, node, key, new / old):
                words = f"× {new / old:.6g}"
                edits.changes.append(TensorChange(_place(optimizer, one, key), "assign", words))
    if factors:
        _schedulers(checkpoint, edits, factors)


def _rate(text: str, old: float | None) -> float:
    try:
        value = float(text.removeprefix("x").removeprefix("×"))
    except ValueError:
        raise InvalidParameter(f"learning rate {text!r}", next="e.g. 1e-4 or x0.1") from None
    if value < 0 or value != value or value == float("inf"):
        raise InvalidParameter(f"learning rate {text!r}", next="e.g. 1e-4 or x0.1")
    return value * (old or 0.0) if text[:1] in ("x", "×") else value


def _schedulers(
    checkpoint: Checkpoint, edits: Edits, factors: dict[tuple[str, int], float]
) -> None:
    """Scale every scheduler's rates; with several optimizers only where it is clear whose it is."""
    found = list(schedules.schedulers(checkpoint.container.root))
    if found and len(checkpoint.optimizers) != 1:
        edits.notes.append(
            say(
                "There are several optimizers: the schedulers were left as they are, and "
                "may undo the assignment at their next step."
            )
        )
        return
    for path, node in found:
        (optimizer,) = checkpoint.optimizers
        by_group = [factors.get((optimizer.key, one.index), 1.0) for one in optimizer.groups]
        for key in schedules.scale(edits, node, by_group):
            words = f"× {_listed(by_group)}"
            edits.changes.append(TensorChange(f"{path}.{key}", "assign", words))


def _listed(factors: Iterable[float]) -> str:
    return ", ".join(dict.fromkeys(f"{factor:.6g}" for factor in factors))


def _steps(checkpoint: Checkpoint, edits: Edits, step: int) -> None:
    """Set the run's step counter and that of every state."""
    before = len(edits.changes)
    for place in counters(checkpoint.container.root, STEPS):
        _put(edits, place, step)
    _beside(checkpoint, edits, STEPS, step)
    for optimizer in checkpoint.optimizers:
        counted = [
            state
            for state in optimizer.states
            if slots.set_step(checkpoint, edits, optimizer, state, step, alone=False)
        ]
        if counted:
            words = say("{step} for {number} parameters", step=step, number=len(counted))
            edits.changes.append(TensorChange(f"{optimizer.key}.state.step", "assign", words))
    if len(edits.changes) == before:
        raise OperationError("counts no steps", where=checkpoint.path)


def _count(
    checkpoint: Checkpoint, edits: Edits, names: tuple[str, ...], value: int, word: str
) -> None:
    found = list(counters(checkpoint.container.root, names))
    for place in found:
        _put(edits, place, value)
    if not _beside(checkpoint, edits, names, value) and not found:
        raise OperationError(f"has no {word} counter", where=checkpoint.path)


def _beside(checkpoint: Checkpoint, edits: Edits, names: tuple[str, ...], value: int) -> bool:
    """Set the counters of the JSON files beside the weights; return whether there are any."""
    found = False
    for file, said in (checkpoint.container.metadata.get("json") or {}).items():
        for key, old in said.items() if file in _COUNTING else ():
            if key.lower() in names and type(old) in (int, float):
                edits.texts.setdefault(file, {})[key] = type(old)(value)
                words = f"{old:.10g} → {value}"
                edits.changes.append(TensorChange(f"{file}.{key}", "assign", words))
                found = True
    return found


def _put(edits: Edits, place: tuple[Any, str, str], value: int) -> None:
    mapping, key, path = place
    edits.changes.append(TensorChange(path, "assign", put(edits, mapping, key, value)))
