"""Take modules from another checkpoint, with their optimizer state."""

from __future__ import annotations

from ckptools.errors import NoSuchTensor, ShapeMismatch
from ckptools.layouts import open as open_checkpoint
from ckptools.surgery import slots, values
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import (
    MODULE,
    SET,
    Option,
    chosen,
    operation,
    standing_notes,
    states_of,
    weight_set,
)
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.plan import TensorChange
from ckptools.types.wording import say


@operation(
    "transplant",
    module=MODULE,
    set=SET,
    from_checkpoint=Option("The checkpoint to take them from.", kind="path", required=True),
    optimizer=Option(
        "What happens to the optimizer's state of the module: the other file's slots, zeros, or "
        "as it is.",
        default="take",
        choices=("take", "reset", "keep"),
    ),
)
def transplant(
    checkpoint: Checkpoint,
    *,
    module: tuple[str, ...],
    from_checkpoint: str,
    set: str | None = None,
    optimizer: str = "take",
) -> Edits:
    """Take modules from another checkpoint, with their optimizer state.

    The usual cure when an earlier epoch is healthy.  Slots and own steps come along; where the
    other file has none for a parameter, its slots here become zero; where this file has none, they
    are created.
    """
    donor = open_checkpoint(from_checkpoint)
    tensors = chosen(checkpoint, module, set)
    given = _matching(tensors, weight_set(donor, set), from_checkpoint)
    own = states_of(checkpoint, tensors) if optimizer != "keep" else {}
    theirs = states_of(donor, given.values()) if optimizer == "take" else {}
    edits = Edits(notes=standing_notes([*own.values(), *theirs.values()]))
    if own and optimizer == "take" and not theirs:
        edits.notes.append(
            say(
                "{path} holds no optimizer state of them: here it becomes zero.",
                path=from_checkpoint,
            )
        )
    for tensor in tensors:
        edits.replace_values(tensor.ref, values.of(given[tensor.name].ref), tensor.name)
        done = None
        if tensor.name in own and tensor.name in theirs:
            here, there = own[tensor.name], theirs[tensor.name]
            if here[1].has_state:
                done = slots.copy(checkpoint, edits, here, there[1])
            elif there[1].has_state:
                done = slots.create(checkpoint, edits, here, donor, there) or None
        elif tensor.name in own:
            done = slots.zero(checkpoint, edits, *own[tensor.name])
        edits.changes.append(
            TensorChange(
                tensor.name, "replace", say("from {path}", path=str(from_checkpoint)), slots=done
            )
        )
    return edits


def _matching(
    tensors: list[NamedTensor], others: tuple[NamedTensor, ...], path: str
) -> dict[str, NamedTensor]:
    """Return the donor's tensor for each name; all that do not fit are named in one error."""
    by_name = {tensor.name: tensor for tensor in others}
    missing = [tensor.name for tensor in tensors if tensor.name not in by_name]
    if missing:
        raise NoSuchTensor(
            f"lacks {len(missing)} of the tensors, e.g. {missing[0]}",
            where=path,
            next="choose a checkpoint of the same model",
        )
    wrong = [t.name for t in tensors if by_name[t.name].ref.shape != t.ref.shape]
    if wrong:
        raise ShapeMismatch(
            f"{len(wrong)} tensors have other shapes, e.g. {wrong[0]}: "
            f"{by_name[wrong[0]].ref.shape}",
            where=path,
            next="choose a checkpoint of the same model",
        )
    return {tensor.name: by_name[tensor.name] for tensor in tensors}
