"""Storages whose elements get another dtype; every tensor that views one follows.

A cast belongs to the storage and not to a tensor, so tied weights stay tied and views stay views:
shapes, strides and offsets count elements and do not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ckptools.errors import OperationError
from ckptools.sources.arrays import NUMPY_TYPES
from ckptools.surgery import values
from ckptools.surgery.segments import Fresh
from ckptools.surgery.torch_writer import CLASSES, UNTYPED, nodes, raw
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef
from ckptools.types.tree import Global, Instance, Persistent, unwrap

_FROM_TYPE = "_rebuild_from_type_v2"
_PLAIN_CALLS = ("_rebuild_tensor_v2", "_rebuild_tensor_v3")


def payload(storage: Storage, old: str, new: str) -> Fresh:
    """Return the bytes of a storage with its elements converted from dtype ``old`` to ``new``."""
    whole = TensorRef(old, (storage.nbytes // ITEMSIZE[old],), (1,), storage=storage)
    return Fresh(whole.numel * ITEMSIZE[new], lambda: _converted(whole, new))


def _converted(whole: TensorRef, new: str) -> Iterator[memoryview]:
    assert whole.storage is not None
    order: Literal["<", ">"] = "<" if whole.storage.byteorder == "little" else ">"
    for chunk in values.chunks(whole):
        plain = convert(chunk, new).view(f"u{ITEMSIZE[new]}")
        yield raw(plain.astype(plain.dtype.newbyteorder(order), copy=False))


def convert(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Return values in torch's ``dtype``, rounded to nearest; too large ones become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(NUMPY_TYPES[dtype])


def dtypes_seen(root: Any) -> dict[Storage, set[str]]:
    """Return the dtypes under which the tensors of a tree view each storage."""
    seen: dict[Storage, set[str]] = {}
    for node in nodes(root):
        ref = unwrap(node)
        if isinstance(ref, TensorRef) and ref.storage is not None:
            seen.setdefault(ref.storage, set()).add(ref.dtype)
    return seen


def rebuilt(root: Any, casts: Mapping[Storage, str]) -> Iterator[tuple[Instance, Instance]]:
    """Yield (old, new) for every call that makes a tensor over a storage to be cast.

    Raises OperationError for tensors that are made in a way which has no place for a dtype.
    """
    for node in nodes(root):
        ref = node.value if isinstance(node, Instance) else None
        if not isinstance(ref, TensorRef) or ref.storage is None or _wraps(node):
            continue
        dtype = casts.get(ref.storage)
        if dtype is not None:
            yield node, _call(node, ref, dtype)


def _wraps(node: Instance) -> bool:
    """Return whether a call wraps a tensor that another one makes (``Parameter``)."""
    first = node.args[0] if isinstance(node.args, tuple) and node.args else None
    return isinstance(first, Instance) and isinstance(first.value, TensorRef)


def _call(node: Instance, ref: TensorRef, dtype: str) -> Instance:
    """Return the call that makes the same view of the converted storage."""
    name = node.constructor.name if isinstance(node.constructor, Global) else ""
    args = node.args if isinstance(node.args, tuple) else ()
    if name == _FROM_TYPE and len(args) > 2:  # a tensor with attributes, or of a subclass
        inner = _call(Instance(args[0], args[2]), ref, dtype)
        args = (inner.constructor, args[1], inner.args, *args[3:])
        return replace(node, args=args, value=replace(ref, dtype=dtype))
    first = args[0] if args else None
    if name not in _PLAIN_CALLS or not isinstance(first, Persistent):
        raise OperationError(f"a tensor made by {name or 'an unknown call'} cannot be cast")
    assert ref.storage is not None
    plain = dtype in CLASSES
    kind = Global("torch", CLASSES[dtype]) if plain else UNTYPED
    count = ref.storage.nbytes // ref.itemsize
    numel = count if plain else count * ITEMSIZE[dtype]
    pid = ("storage", kind, first.pid[2], first.pid[3], numel)
    shared = (Persistent(pid), ref.offset, *node.args[2:6])
    extra = node.args[7:] if name == "_rebuild_tensor_v3" else node.args[6:]
    value = replace(ref, dtype=dtype)
    if plain:
        constructor, args = Global("torch._utils", "_rebuild_tensor_v2"), (*shared, *extra)
    else:
        constructor = Global("torch._utils", "_rebuild_tensor_v3")
        args = (*shared, Global("torch", dtype), *extra)
    return replace(node, constructor=constructor, args=args, value=value)
