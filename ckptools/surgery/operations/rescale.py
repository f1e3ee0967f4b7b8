"""Multiply modules by a factor, or scale them to the size of their siblings."""

from __future__ import annotations

import math

import numpy as np

from ckptools.errors import InvalidParameter, OperationError
from ckptools.sources.arrays import NUMPY_TYPES
from ckptools.surgery import fresh_values, slots, values
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
from ckptools.types.tensor import FLOATING


@operation(
    "rescale",
    module=MODULE,
    set=SET,
    factor=Option("Multiply by this; without it, scale to the siblings' median RMS.", kind=float),
    optimizer=Option(
        "What happens to the optimizer's state of the module.",
        default="keep",
        choices=("keep", "reset"),
    ),
)
def rescale(
    checkpoint: Checkpoint,
    *,
    module: tuple[str, ...],
    set: str | None = None,
    factor: float | None = None,
    optimizer: str = "keep",
) -> Edits:
    """Multiply modules by a factor, or scale them to the size of their siblings.

    Without a factor each tensor gets the median RMS of the same tensor in the other blocks of its
    stack.
    """
    if factor is not None and not math.isfinite(factor):
        raise InvalidParameter(f"factor {factor} is not finite")
    tensors = [t for t in chosen(checkpoint, module, set) if t.ref.dtype in FLOATING]
    everything = weight_set(checkpoint, set)
    states = states_of(checkpoint, tensors) if optimizer == "reset" else {}
    edits = Edits(notes=standing_notes(states.values()))
    for tensor in tensors:
        by = factor if factor is not None else _to_siblings(tensor, everything)
        _require_finite(tensor, by)
        edits.replace_values(tensor.ref, values.scaled(values.of(tensor.ref), by), tensor.name)
        own = states.get(tensor.name)
        done = slots.zero(checkpoint, edits, *own) if own else None
        edits.changes.append(TensorChange(tensor.name, "rescale", f"× {by:.6g}", slots=done))
    return edits


def _require_finite(tensor: NamedTensor, factor: float) -> None:
    """Raise OperationError where finite values would become infinite."""
    if abs(factor) <= 1 or not tensor.ref.readable:
        return
    largest = max(map(values.largest, values.chunks(tensor.ref)), default=0.0)
    with np.errstate(over="ignore"):
        product = np.float64(largest * abs(factor)).astype(NUMPY_TYPES[tensor.ref.dtype])
    if not np.isfinite(product):
        raise OperationError(
            f"values up to {largest:.3g} times {factor:g} are too large for {tensor.ref.dtype}",
            where=tensor.name,
            next="choose a smaller --factor",
        )


def _to_siblings(tensor: NamedTensor, tensors: tuple[NamedTensor, ...]) -> float:
    """Return the factor that gives a tensor the siblings' size."""
    wanted = fresh_values.siblings_rms(tensor, tensors)
    if wanted is None:
        raise OperationError("has no siblings in a stack", where=tensor.name, next="give --factor")
    own = values.rms(values.chunks(tensor.ref))
    if not math.isfinite(own):
        raise OperationError("is not finite", where=tensor.name, next="ckptools repair comes first")
    return wanted / own if own > 0 else 1.0
