"""Drop blocks of a stack, or other modules, and renumber what stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptools.errors import OperationError
from ckptools.surgery import renaming
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import (
    MODULE,
    SET,
    chosen,
    operation,
    standing_notes,
    states_of,
    weight_set,
)
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.plan import TensorChange
from ckptools.types.wording import join, say

_Block = tuple[str, int]


@operation("drop", module=MODULE, set=SET)
def drop(checkpoint: Checkpoint, *, module: tuple[str, ...], set: str | None = None) -> Edits:
    """Drop blocks of a stack, or other modules, and renumber what stays.

    Six decoder layers become three that load into a model of three: the blocks behind move up,
    the optimizer's parameters are numbered anew, averaged copies of the weights follow.
    Schedulers stay as they are.
    """
    tensors = chosen(checkpoint, module, set)
    everything = weight_set(checkpoint, set)
    if len(tensors) == len(everything):
        raise OperationError("would drop everything", where=checkpoint.path)
    names: dict[str, str | None] = {tensor.name: None for tensor in tensors}
    gone = _whole_blocks(everything, names)
    names |= _moved_up(everything, names, gone)
    sets = renaming.likewise(checkpoint, tensors)
    edits = Edits()
    renaming.rename(checkpoint, edits, names, sets)
    edits.changes += [TensorChange(tensor.name, "drop") for tensor in tensors]
    edits.changes += [
        TensorChange(old, "rename", new) for old, new in names.items() if new is not None
    ]
    states = states_of(checkpoint, [one for one in everything if one.name in names])
    edits.notes += standing_notes(states.values())
    edits.notes += _notes(checkpoint, everything, gone)
    if len(sets) > 1:
        edits.notes.append(say("The same was done in {sets}.", sets=join(one.name for one in sets)))
    return edits


def _whole_blocks(tensors: tuple[NamedTensor, ...], names: dict[str, str | None]) -> set[_Block]:
    """Return the numbered children (of stacks, and of anything else) of which no tensor stays."""
    every: set[_Block] = set()
    stay: set[_Block] = set()
    for tensor in tensors:
        found = set(_numbers(tensor))
        every |= found
        if tensor.name not in names:
            stay |= found
    return every - stay


def _numbers(tensor: NamedTensor) -> Iterator[_Block]:
    """Yield every (parent, number) on the way to a tensor."""
    words = tensor.name.split(".")
    for index, word in enumerate(words[:-1]):
        if word.isdecimal():
            yield ".".join(words[:index]), int(word)
    if tensor.stack is not None and "*" in tensor.stack and tensor.block is not None:
        yield tensor.stack, tensor.block


def _moved_up(
    tensors: tuple[NamedTensor, ...], names: dict[str, str | None], gone: set[_Block]
) -> dict[str, str | None]:
    """Return new names for the tensors behind the children that go."""
    found: dict[str, str | None] = {}
    for tensor in tensors:
        if tensor.name in names:
            continue
        words = tensor.name.split(".")
        for parent, number in _numbers(tensor):
            below = sum(other == parent and index < number for other, index in gone)
            if below:
                _renumber(words, parent, number - below)
        if (new := ".".join(words)) != tensor.name:
            found[tensor.name] = new
    return found


def _renumber(words: list[str], parent: str, number: int) -> None:
    """Put another number into the words of a name."""
    above = parent.split(".") if parent else []
    if above and "*" in above[-1]:
        words[len(above) - 1] = above[-1].replace("*", str(number))
    else:
        words[len(above)] = str(number)


def _notes(
    checkpoint: Checkpoint, tensors: tuple[NamedTensor, ...], gone: set[_Block]
) -> list[str]:
    """Say what else may have to follow: stacks of the same length, settings of that number."""
    counts: dict[str, set[int]] = {}
    for tensor in tensors:
        if tensor.stack is not None and tensor.block is not None:
            counts.setdefault(tensor.stack, set()).add(tensor.block)
    notes: list[str] = []
    for stack in dict.fromkeys(stack for stack, _ in sorted(gone) if stack in counts):
        before = len(counts[stack])
        alike = [
            other for other in counts if other not in dict(gone) and len(counts[other]) == before
        ]
        if alike:
            notes.append(
                say(
                    "{alike} also had {before} blocks: if they belong to {stack}, drop "
                    "theirs, too.",
                    alike=join(alike),
                    before=before,
                    stack=stack,
                )
            )
        notes += [
            say("The saved setting {name} still says {before}.", name=name, before=before)
            for name, value in _settings(checkpoint)
            if value == before and type(value) is int
            and any(word in name.lower() for word in ("layer", "depth", "block"))
        ]  # fmt: skip
    return notes


def _settings(checkpoint: Checkpoint) -> Iterator[tuple[str, Any]]:
    """Yield what the file, or a configuration beside it, says about the model."""
    yield from checkpoint.run.hyperparameters.items()
    for file, said in (checkpoint.container.metadata.get("json") or {}).items():
        if isinstance(said, dict):
            yield from ((f"{name} of {file}", value) for name, value in said.items())
