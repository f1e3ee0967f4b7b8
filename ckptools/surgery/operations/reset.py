"""Re-initialise modules, weights and optimizer state together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ckptools.errors import InvalidParameter, OperationError, ShapeMismatch
from ckptools.layouts import open as open_checkpoint
from ckptools.names.initializers import Initializer, candidates
from ckptools.sources.arrays import read_array
from ckptools.surgery import slots
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

#: gives a tensor's new values, and the words for where they come from
_Filler = tuple[str, Callable[[], Any]]


@operation(
    "reset",
    module=MODULE,
    set=SET,
    init=Option("Initialiser by name instead of the usual one of each tensor."),
    from_checkpoint=Option("Take the initial values from this checkpoint instead.", kind="path"),
    seed=Option("Seed of the random numbers.", kind=int, default=0),
    match_scale=Option(
        "Scale each tensor to the median RMS of its siblings in the stack.", kind="flag"
    ),
    optimizer=Option(
        "What happens to the optimizer's state of the module.",
        default="reset",
        choices=("reset", "keep"),
    ),
)
def reset(
    checkpoint: Checkpoint,
    *,
    module: tuple[str, ...],
    set: str | None = None,
    init: str | None = None,
    from_checkpoint: str | None = None,
    seed: int = 0,
    match_scale: bool = False,
    optimizer: str = "reset",
) -> Edits:
    """Re-initialise modules, weights and optimizer state together.

    Every tensor gets what its own kind of layer starts with (a Linear's kaiming_uniform, a norm's
    ones, lora_B's zeros); the receipt names the initialiser of each.  The optimizer's slots of
    these parameters become zero and their own step too, so that bias correction starts anew.
    """
    tensors = chosen(checkpoint, module, set)
    everything = weight_set(checkpoint, tensors[0].set)
    states = states_of(checkpoint, tensors) if optimizer == "reset" else {}
    filler = _from_file(from_checkpoint) if from_checkpoint else _from_table(everything, init, seed)
    edits = Edits(notes=standing_notes(states.values()))
    for tensor in tensors:
        words, make = filler(tensor)
        if match_scale:
            words, make = _scaled(tensor, everything, words, make)
        edits.replace_values(tensor.ref, make)
        done = (
            slots.zero(checkpoint, edits, *states[tensor.name]) if tensor.name in states else None
        )
        edits.changes.append(
            TensorChange(tensor.name, "reinitialise", initializer=words, slots=done)
        )
    return edits


def _from_file(path: str) -> Callable[[NamedTensor], _Filler]:
    initial = open_checkpoint(path)

    def fill(tensor: NamedTensor) -> _Filler:
        found = {other.name: other for other in weight_set(initial, None)}.get(tensor.name)
        if found is None or found.ref.shape != tensor.ref.shape:
            raise ShapeMismatch(
                "is not in the initial checkpoint with this shape",
                where=f"{path}: {tensor.name}",
                next="choose another --from-checkpoint, or reset it by its usual initialiser",
            )
        return f"values of {path}", lambda: read_array(found.ref)

    return fill


def _from_table(
    tensors: tuple[NamedTensor, ...], init: str | None, seed: int
) -> Callable[[NamedTensor], _Filler]:
    shapes = {tensor.name: tensor.ref.shape for tensor in tensors}
    blocks = {
        stack: len({t.block for t in tensors if t.stack == stack})
        for stack in {t.stack for t in tensors if t.stack}
    }

    def fill(tensor: NamedTensor) -> _Filler:
        made = candidates(
            tensor.name,
            tensor.ref.shape,
            tensor.role,
            tensor.kind,
            weight_shape=shapes.get(_weight_beside(tensor.name)),
            blocks=blocks.get(tensor.stack) if tensor.stack else None,
        )
        initializer = _choice(tensor, made, init)
        numbers = [seed, *_name_seed(tensor.name)]

        def make() -> Any:  # the same values each time: a checksum may need them before the file
            return initializer.sample(tensor.ref.shape, np.random.default_rng(numbers))

        return initializer.name, make

    return fill


def _weight_beside(name: str) -> str:
    """Return the weight that a bias belongs to: ``a.bias`` → ``a.weight``."""
    return f"{name.removesuffix('bias')}weight"


def _choice(tensor: NamedTensor, made: tuple[Initializer, ...], init: str | None) -> Initializer:
    if not made:
        raise OperationError(
            "no initialiser is known for it",
            where=tensor.name,
            next="take its first values from a file with --from-checkpoint",
        )
    if init is None:
        return made[0]
    named = [one for one in made if one.name.split("(")[0] == init.split("(")[0]]
    if not named:
        raise InvalidParameter(
            f"no initialiser {init!r}",
            where=tensor.name,
            next=f"known for it: {', '.join(one.name for one in made)}",
        )
    return named[0]


def _name_seed(name: str) -> list[int]:
    """Return numbers from a tensor's name, so that its values do not depend on the others."""
    return list(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _scaled(
    tensor: NamedTensor, everything: tuple[NamedTensor, ...], words: str, make: Callable[[], Any]
) -> _Filler:
    """Scale new values to the median RMS of the same tensor in the stack's other blocks."""
    siblings = [
        other.ref
        for other in everything
        if tensor.stack and other.stack == tensor.stack and other.block != tensor.block
        and _inside(other) == _inside(tensor) and other.ref.shape == tensor.ref.shape
    ]  # fmt: skip
    if not siblings:
        return words, make

    def scaled() -> Any:
        values = np.asarray(make(), np.float64)
        wanted = float(np.median([_rms(read_array(ref)) for ref in siblings]))
        own = _rms(values)
        return values * (wanted / own) if own > 0 else values

    return f"{words}, scaled to its siblings", scaled


def _inside(tensor: NamedTensor) -> str:
    """Return a tensor's name inside its block."""
    return tensor.name.removeprefix(f"{tensor.stack}.{tensor.block}.")


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))
