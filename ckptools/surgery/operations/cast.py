"""Give weights another dtype; the optimizer's state keeps its own."""

from __future__ import annotations

import numpy as np

from ckptools.errors import OperationError
from ckptools.surgery import casts, values
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import ANY_MODULE, SET, Option, chosen, operation
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.plan import TensorChange
from ckptools.types.tensor import FLOATING, Storage

_DTYPES = ("float32", "bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2")


@operation(
    "cast",
    module=ANY_MODULE,
    set=SET,
    dtype=Option("The new dtype.", choices=_DTYPES, required=True),
    overflow=Option(
        "What to do when finite values would become infinite.",
        default="refuse",
        choices=("refuse", "allow"),
    ),
)
def cast(
    checkpoint: Checkpoint,
    *,
    dtype: str,
    module: tuple[str, ...] = (),
    set: str | None = None,
    overflow: str = "refuse",
) -> Edits:
    """Give weights another dtype; the optimizer's state keeps its own.

    Values are rounded to nearest.  Whole storages are converted, so tied weights stay tied.
    """
    edits = Edits()
    seen = casts.dtypes_seen(checkpoint.container.root)
    lost: dict[Storage, str] = {}
    for tensor in chosen(checkpoint, module, set):
        storage, old = tensor.ref.storage, tensor.ref.dtype
        if old not in FLOATING or old == dtype:
            continue
        if storage is None or not tensor.ref.readable:
            raise OperationError("its values cannot be read", where=tensor.name)
        if seen.get(storage, {old}) != {old}:
            raise OperationError("shares memory with tensors of other dtypes", where=tensor.name)
        if storage not in edits.casts:
            lost[storage] = _loss(tensor, dtype, overflow)
        edits.casts[storage] = (old, dtype)
        words = f"{old} → {dtype}{lost[storage]}"
        edits.changes.append(TensorChange(tensor.name, "cast", words))
    if not edits.changes:
        raise OperationError(
            f"nothing to cast: all is {dtype} or not floating", where=checkpoint.path
        )
    return edits


def _loss(tensor: NamedTensor, dtype: str, overflow: str) -> str:
    """Return what a cast loses beyond rounding; raise where finite values become infinite."""
    infinite = flushed = 0
    for chunk in values.chunks(tensor.ref):
        with np.errstate(invalid="ignore"):  # a signalling NaN is still a NaN
            before = chunk.astype(np.float64)
            after = casts.convert(chunk, dtype).astype(np.float64)
        infinite += int((np.isfinite(before) & ~np.isfinite(after)).sum())
        flushed += int(((after == 0) & (before != 0)).sum())
    if infinite and overflow == "refuse":
        raise OperationError(
            f"{infinite} values are too large for {dtype}",
            where=tensor.name,
            next="choose bfloat16, or pass --overflow allow",
        )
    words = [f"{infinite} overflow"] if infinite else []
    words += [f"{flushed} become zero"] if flushed else []
    return f" ({', '.join(words)})" if words else ""
