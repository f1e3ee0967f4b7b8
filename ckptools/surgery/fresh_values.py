"""New values for tensors: from the table of initialisers, a file, or a model that makes itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ckptools.errors import InvalidParameter, OperationError, ShapeMismatch
from ckptools.layouts import open as open_checkpoint
from ckptools.names.initializers import Initializer, candidates
from ckptools.names.prefixes import without_wrappers
from ckptools.sources.user_code import FOREIGN, user_module
from ckptools.surgery import values
from ckptools.surgery.operation import weight_set
from ckptools.surgery.values import Make
from ckptools.types.checkpoint import NamedTensor

#: the words for where new values come from, and what makes them (the same ones each time)
Filler = tuple[str, Make]
Fill = Callable[[NamedTensor], Filler]


def from_table(tensors: tuple[NamedTensor, ...], init: str | None, seed: int) -> Fill:
    """Return what draws a tensor's values as its own kind of layer starts.

    Parameters
    ----------
    tensors: the whole weight set, for the scalings that look at others.
    init: an initialiser by name instead of the usual one.
    seed: with the tensor's name it decides the values, whatever else is drawn.
    """
    shapes = {tensor.name: tensor.ref.shape for tensor in tensors}
    blocks = {
        stack: len({t.block for t in tensors if t.stack == stack})
        for stack in {t.stack for t in tensors if t.stack}
    }

    def fill(tensor: NamedTensor) -> Filler:
        made = candidates(
            tensor.name,
            tensor.ref.shape,
            tensor.role,
            tensor.kind,
            weight_shape=shapes.get(f"{tensor.name.removesuffix('bias')}weight"),
            blocks=blocks.get(tensor.stack) if tensor.stack else None,
        )
        initializer = _choice(tensor, made, init)
        return initializer.name, _drawn(initializer, tensor, seed)

    return fill


def _drawn(initializer: Initializer, tensor: NamedTensor, seed: int) -> Make:
    """Return what draws a tensor's values; its name is part of the seed."""
    numel, numbers = tensor.ref.numel, [seed, *_name_seed(tensor.name)]
    if initializer.values is not None:
        return values.given(initializer.values)

    def drawn() -> Iterator[values.Array]:
        rng = np.random.default_rng(numbers)
        for count in values.counts(numel):
            yield initializer.sample((count,), rng)

    return drawn


def from_file(path: str) -> Fill:
    """Return what takes a tensor's values from another checkpoint."""
    initial = {tensor.name: tensor for tensor in weight_set(open_checkpoint(path), None)}

    def fill(tensor: NamedTensor) -> Filler:
        found = initial.get(tensor.name)
        if found is None or found.ref.shape != tensor.ref.shape:
            raise ShapeMismatch(
                "is not in the other checkpoint with this shape",
                where=f"{path}: {tensor.name}",
                next="choose another --from, or leave it out for the usual initialiser",
            )
        return f"values of {path}", values.of(found.ref)

    return fill


def from_model(spec: str, seed: int) -> Fill:
    """Return what takes a tensor's values from a model that ``package.module:build`` makes.

    The function is the user's own code: it is imported and called, with torch seeded before.
    """
    import torch

    torch.manual_seed(seed)
    state = _built_state(spec)
    made = {without_wrappers(name): value.detach() for name, value in state.items()}

    def fill(tensor: NamedTensor) -> Filler:
        value = made.get(tensor.name, made.get(without_wrappers(tensor.name)))
        if value is None or tuple(value.shape) != tensor.ref.shape:
            raise ShapeMismatch("the model has no such tensor of this shape", where=tensor.name)
        return f"values of {spec}", _of_torch(value)

    return fill


def _of_torch(tensor: Any) -> Make:
    """Return what gives the values of a tensor of torch's."""
    flat = tensor.detach().reshape(-1)

    def made() -> Iterator[values.Array]:
        for part in flat.split(values.ELEMENTS):
            yield (part.double() if part.is_floating_point() else part).cpu().numpy()

    return made


def _built_state(spec: str) -> dict[str, Any]:
    """Return the state dict of the model that ``package.module:name`` or ``file.py:name`` makes."""
    where, _, name = spec.rpartition(":")
    try:
        state: dict[str, Any] = getattr(user_module(where), name)().state_dict()
    except FOREIGN as error:
        raise InvalidParameter(
            f"cannot build the model: {error}", where=spec, next="write package.module:function"
        ) from error
    return state


def _choice(tensor: NamedTensor, made: tuple[Initializer, ...], init: str | None) -> Initializer:
    if not made:
        raise OperationError(
            "no initialiser is known for it",
            where=tensor.name,
            next="take its first values from a file with --from",
        )
    if init is None:
        return made[0]
    named = [one for one in made if init in (one.name, one.name.split("(")[0])]
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


# -- siblings --------------------------------------------------------------------------------


def siblings(tensor: NamedTensor, tensors: Iterable[NamedTensor]) -> list[NamedTensor]:
    """Return the same tensor in the stack's other blocks."""
    inside = _inside(tensor)
    return [
        other
        for other in tensors
        if tensor.stack is not None
        and other.stack == tensor.stack
        and other.block != tensor.block
        and other.ref.shape == tensor.ref.shape
        and _inside(other) == inside
    ]


def _inside(tensor: NamedTensor) -> str:
    """Return a tensor's name inside its block."""
    return tensor.name.removeprefix(tensor.module)


def siblings_rms(tensor: NamedTensor, tensors: Iterable[NamedTensor]) -> float | None:
    """Return the median RMS of a tensor's siblings, None without any."""
    found = [values.rms(values.chunks(other.ref)) for other in siblings(tensor, tensors)]
    finite = [value for value in found if np.isfinite(value)]
    return float(np.median(finite)) if finite else None


def like_siblings(tensor: NamedTensor, tensors: tuple[NamedTensor, ...], filler: Filler) -> Filler:
    """Return values scaled to the median RMS of the tensor's siblings."""
    words, make = filler
    wanted = siblings_rms(tensor, tensors)
    if wanted is None:
        return filler

    def scaled() -> Iterator[values.Array]:
        own = values.rms(make())
        return values.scaled(make, wanted / own if own > 0 else 1.0)()

    return f"{words}, scaled to its siblings", scaled
