"""Tensors, arrays and plain values recognised among the calls that a pickle asks for.

A call is recognised by the exact name of what would be called, and believed only as far as its
arguments hold: every offset, size and stride is checked against the storage with Python integers.
A call that contradicts itself leaves a fault and stays inert.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Any

from ckptools.formats.fault_list import FaultList
from ckptools.formats.pickle_machine import PickleResult
from ckptools.formats.plain_values import (
    PLAIN,
    Cache,
    Unfit,
    called,
    global_name,
    is_size,
    row_major,
    sizes,
)
from ckptools.formats.storage_references import StorageReference, parse_persistent_id
from ckptools.formats.tree_paths import locate
from ckptools.formats.view_budget import limit_views
from ckptools.types.container import Fault
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef
from ckptools.types.tree import Global, Instance, Pairs, Persistent
from ckptools.types.wording import say

#: Other spellings of dtypes.
_DTYPE_ALIASES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "chalf": "complex32",
    "cfloat": "complex64",
    "cdouble": "complex128",
}
#: Elements that share one byte.
_PER_BYTE = {"quint4x2": 2, "quint2x4": 4}
#: Types whose elements are no numbers of numpy or ml_dtypes.
_PACKED = frozenset({"float4_e2m1fn_x2", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"})
#: Objects with faults of which the path is looked up.
_LOCATED = 10_000
#: Entries of a state or of metadata that are looked at.
_FEW = 1000
#: A view that repeats elements may be this much larger than its storage, in bytes.
_LARGEST_EXPANSION = 64 << 20


@dataclass(frozen=True, slots=True)
class Recognised:
    """What :func:`recognise` adds to the tree's ``value`` fields.

    Attributes
    ----------
    faults: calls that contradict themselves, all of scope "object".
    used_keys: keys of all storages that the pickle refers to, also from unrecognised objects.
    """

    faults: tuple[Fault, ...]
    used_keys: frozenset[str]


def recognise(
    result: PickleResult,
    storages: Mapping[str, Storage],
    refused: Mapping[str, str] = MappingProxyType({}),
    nested: Mapping[int, StorageReference] = MappingProxyType({}),
) -> Recognised:
    """Set ``Instance.value`` of every tensor, array and plain value of a pickle.

    Parameters
    ----------
    result: the pickle as the machine read it.
    storages: where the bytes of each storage key lie; a key may be missing.
    refused: reason by key for storages that are there but not to be read.
    nested: storages inside the pickle itself, by the identity of the call that would load them.
    """
    work = _Recogniser(storages, refused)
    work.references.update(nested)
    work.check_storages(result.persistents)
    for instance in result.instances:
        work.recognise(instance)
    faults = work.faults(result.root)
    limit_views(result.instances, faults)
    return Recognised(faults.faults(), frozenset(work.lengths))


class _Recogniser:
    """State of one recognition: storages, and what went wrong where."""

    def __init__(self, storages: Mapping[str, Storage], refused: Mapping[str, str]) -> None:
        self.storages = storages
        self.refused = refused
        self.current: Any = None
        self.cache: Cache = {}
        self.checked: set[int] = set()
        self.lengths: dict[str, set[int]] = {}
        self.references: dict[int, StorageReference] = {}
        self.wrong: list[tuple[Any, str, str]] = []

    # -- storages --------------------------------------------------------------------------

    def check_storages(self, persistents: tuple[Any, ...]) -> None:
        """Parse every persistent id and compare it with the storage that is there."""
        for node in persistents:
            if type(node) is not Persistent:
                continue
            try:
                reference = parse_persistent_id(node.pid)
            except Unfit as error:
                self.wrong.append((node, "bad-persistent-id", str(error)))
                continue
            self.references[id(node)] = reference
            lengths = self.lengths.setdefault(reference.key, set())
            if reference.nbytes not in lengths:
                lengths.add(reference.nbytes)
                self._check_storage(node, reference, len(lengths) > 1)

    def _check_storage(self, node: Persistent, reference: StorageReference, again: bool) -> None:
        """Compare a length that the pickle states with the storage (once per length)."""
        if reference.key in self.refused:
            return
        storage = self.storages.get(reference.key)
        if storage is None:
            message = f"storage {ascii(reference.key)[:80]} is not in the file"
            self.wrong.append((node, "missing-storage", message))
        elif storage.nbytes != reference.nbytes:
            message = (
                f"storage {storage.name} has {storage.nbytes:,} bytes, "
                f"{'elsewhere ' if again else ''}the pickle says {reference.nbytes:,}"
            )
            self.wrong.append((node, "storage-size-mismatch", message))

    def storage(self, node: Any) -> tuple[StorageReference, Storage | None]:
        """Return the storage that an argument refers to."""
        reference = self.references.get(id(node))
        if reference is None:
            raise Unfit("its storage is no storage of this file")
        return reference, self.storages.get(reference.key)

    # -- calls -----------------------------------------------------------------------------

    def recognise(self, instance: Instance) -> None:
        """Set the value of one call, or note what is wrong with it."""
        name = called(instance) or ""
        rebuild = _REBUILD.get(name)
        self.current = instance
        try:
            if rebuild is not None:
                instance.value = rebuild(self, _arguments(instance))
                _check_unchanged(instance)
            elif name in PLAIN:
                instance.value = PLAIN[name](instance, self.cache)
        except (ValueError, OverflowError) as error:
            kind = error.kind if isinstance(error, Unfit) else "malformed-object"
            self.wrong.append((instance, kind, str(error)))

    def problem(self, kind: str, message: str) -> None:
        """Note that the call at hand is wrong in a way that leaves something to list."""
        self.wrong.append((self.current, kind, message))

    def check_hooks(self, hooks: Any) -> None:
        """Torch always writes an empty dict there."""
        if hooks is not None and not _empty(hooks):
            self.problem("tensor-hooks", say("it carries hooks, which torch never saves"))

    def check_attributes(self, state: Any) -> None:
        """Attributes of a tensor must not reach for Python's inner workings."""
        for half in _halves(state):
            if id(half) in self.checked:  # many tensors may share one state
                continue
            self.checked.add(id(half))
            for key, _ in _pairs(half):
                if type(key) is not str or key.startswith("__"):
                    name = ascii(key)[:60] if type(key) is str else "something that is no name"
                    self.problem(
                        "tensor-attributes", say("it sets the attribute {name}", name=name)
                    )

    def unoffered(self, dtype: str, key: str) -> str | None:
        """Return why the values are listed but not offered, or None."""
        if dtype.startswith(("qint", "quint")):
            return "quantised"
        if dtype in _PACKED:
            return say("packed elements ({dtype})", dtype=dtype)
        if dtype not in ITEMSIZE:
            return say("elements of type {dtype!a}, which is not known", dtype=dtype[:60])
        if key in self.refused:
            return self.refused[key]
        return None if key in self.storages else say("its storage is not in the file")

    def faults(self, root: Any) -> FaultList:
        """Return what went wrong, each with the path of the object concerned."""
        faults = FaultList()
        places = locate(root, (node for node, _, _ in self.wrong[:_LOCATED])) if self.wrong else {}
        for node, kind, message in self.wrong:
            where = places.get(id(node), say("an object outside of the tree"))
            faults.add(kind, where or "the whole pickle", message, scope="object")
        return faults


def _pairs(node: Any) -> list[tuple[Any, Any]]:
    """Return the pairs of a dict (or of an object that was given some), else nothing."""
    if type(node) is Pairs:
        return node.entries
    return node.pairs if type(node) is Instance else []


def _halves(state: Any) -> tuple[Any, ...]:
    """Return the attributes of ``__dict__`` and those of slots."""
    return state[:2] if type(state) is tuple else (state,)


def _empty(node: Any) -> bool:
    """Return whether a node is a dict or OrderedDict without content."""
    if type(node) is Pairs:
        return not node.entries
    plain = called(node) == "collections.OrderedDict" and not node.has_state
    return plain and not node.pairs and node.args in ((), ([],))


def _arguments(instance: Instance) -> tuple[Any, ...]:
    if type(instance.args) is not tuple or instance.kwargs is not None:
        raise Unfit("its arguments are no tuple")
    return instance.args


def _check_unchanged(instance: Instance) -> None:
    """A tensor is complete once it is rebuilt; what comes later would change it."""
    if instance.has_state or instance.items or instance.pairs:
        instance.value = None
        raise Unfit("it is changed after it was rebuilt", "tensor-changed")


# -- views -----------------------------------------------------------------------------------


def outside(
    dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, nbytes: int
) -> str | None:
    """Return why a view does not fit into a storage of ``nbytes`` bytes, or None.

    Parameters
    ----------
    shape, strides, offset: in elements, none negative.
    """
    elements = prod(shape)
    itemsize = ITEMSIZE[dtype]
    if elements * itemsize >= 1 << 63:
        return say("its shape {short} is larger than any memory", short=_short(shape))
    if not elements:
        return None
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    needed = -(-(last + 1) // _PER_BYTE.get(dtype, 1)) * itemsize
    if needed > nbytes:
        return say(
            "it reaches to byte {needed:,} of a storage of {nbytes:,} bytes",
            needed=needed,
            nbytes=nbytes,
        )
    if elements * itemsize > max(nbytes, _LARGEST_EXPANSION):
        return say(
            "it repeats a storage of {nbytes:,} bytes to {elements:,}",
            nbytes=nbytes,
            elements=elements * itemsize,
        )
    return None


def _short(shape: tuple[int, ...]) -> str:
    text = ", ".join(map(str, shape[:4]))
    return f"[{text}{', ...' if len(shape) > 4 else ''}]"[:120]


def _view(
    work: _Recogniser,
    node: Any,
    layout: tuple[Any, Any, Any],
    *,
    dtype: str | None = None,
    grad: Any = None,
    metadata: Sequence[Any] = (),
) -> TensorRef:
    """Return the tensor that views the storage behind ``node``.

    Parameters
    ----------
    layout: offset, sizes and strides as the file gives them.
    dtype: where it is not that of the storage.
    """
    reference, storage = work.storage(node)
    offset, size, steps = layout[0], sizes(layout[1]), sizes(layout[2])
    if len(size) != len(steps):
        raise Unfit(f"it has {len(size)} sizes and {len(steps)} strides")
    if not is_size(offset):
        raise Unfit("its offset is no position", "tensor-out-of-bounds")
    kind = dtype or reference.dtype or "uint8"
    reason = work.unoffered(kind, reference.key) or _lazy(metadata)
    if kind in ITEMSIZE:
        shift, limit = _bounds(reference, storage, ITEMSIZE[kind])
        offset += shift
        problem = outside(kind, size, steps, offset, limit)
        if problem is not None:
            work.problem("tensor-out-of-bounds", problem)
            storage, reason = None, problem
    return TensorRef(kind, size, steps, offset, storage, reason, _flag(grad))


def _bounds(reference: StorageReference, storage: Storage | None, itemsize: int) -> tuple[int, int]:
    """Return the first element and the last byte that a tensor of this storage may touch."""
    limit = reference.nbytes if storage is None else min(reference.nbytes, storage.nbytes)
    if reference.view is None:
        return 0, limit
    _, first, length = reference.view
    return first, min(limit, (first + length) * itemsize)


def _lazy(metadata: Sequence[Any]) -> str | None:
    """Return why a lazily conjugated or negated view is not offered."""
    for key, value in _pairs(metadata[0])[:_FEW] if metadata else ():
        if value is True:
            return f"a lazy view ({key[:40]!a})" if type(key) is str else "a lazy view"
    return None


# -- the functions that torch's pickles call -------------------------------------------------


def _tensor_v1(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    storage, *layout = _taken(args, 4, 4)
    return _view(work, storage, (layout[0], layout[1], layout[2]))


def _tensor_v2(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    storage, offset, size, stride, grad, hooks, *metadata = _taken(args, 6, 7)
    work.check_hooks(hooks)
    return _view(work, storage, (offset, size, stride), grad=grad, metadata=metadata)


def _tensor_v3(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    storage, offset, size, stride, grad, hooks, dtype, *metadata = _taken(args, 7, 8)
    work.check_hooks(hooks)
    kind = dtype_name(dtype)
    return _view(work, storage, (offset, size, stride), dtype=kind, grad=grad, metadata=metadata)


def _quantised(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    storage, offset, size, stride, _, grad, hooks = _taken(args, 7, 7)
    work.check_hooks(hooks)
    return _view(work, storage, (offset, size, stride), grad=grad)


def _parameter(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    data, grad, hooks, *state = _taken(args, 3, 4)
    work.check_hooks(hooks)
    if state:
        work.check_attributes(state[0])
    return replace(_inner(data), parameter=True, requires_grad=_flag(grad))


def _inner(node: Any) -> TensorRef:
    """Return the tensor that an argument was recognised as."""
    if type(node) is not Instance or not isinstance(node.value, TensorRef):
        raise Unfit("it wraps something that is no tensor")
    return node.value


def _from_type(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef | None:
    """Recognise a tensor of a subclass or with attributes, however often it is wrapped."""
    name: str | None = _FROM_TYPE[0]
    state: Any = None
    while name in _FROM_TYPE:
        wrapper, _, args, *rest = _taken(args, 3, 4)
        state = rest[0] if rest else None
        name = global_name(wrapper)
        if type(args) is not tuple:
            raise Unfit("its arguments are no tuple")
    work.check_attributes(state)
    rebuild = _REBUILD.get(name or "")
    if rebuild is None:
        return None
    ref = rebuild(work, args)
    return _local_tensor(ref, state) if rebuild is _wrapper_subclass else ref


def _local_tensor(ref: TensorRef | None, state: Any) -> TensorRef | None:
    """Return the values of a distributed tensor where this file holds all of them."""
    for half in _halves(state):
        for key, value in _pairs(half)[:_FEW]:
            if key == "_local_tensor" and type(value) is Instance and ref is not None:
                local = value.value
                if isinstance(local, TensorRef) and local.shape == ref.shape:
                    return replace(local, requires_grad=ref.requires_grad)
    return ref


def _wrapper_subclass(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    cls, dtype, size, stride, offset, _, _, grad = _taken(args, 8, 8)
    shape, strides = sizes(size), sizes(stride)
    if len(shape) != len(strides) or not is_size(offset):
        raise Unfit("its sizes and strides do not fit")
    reason = f"an outer shell of {ascii(global_name(cls))[:80]}; its parts are listed inside"
    return TensorRef(dtype_name(dtype), shape, strides, 0, None, reason, _flag(grad))


def _sparse(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    layout, data = _taken(args, 2, 2)
    (name,) = _taken(_arguments(layout), 1, 1) if type(layout) is Instance else (None,)
    if type(data) is not tuple or type(name) is not str or not name.startswith("torch.sparse_"):
        raise Unfit("a sparse tensor of an unknown layout")
    tensors = 2 if name == "torch.sparse_coo" else 3
    parts = _taken(data, tensors + 1, tensors + 2)
    *_, values = (_inner(part) for part in parts[:tensors])
    shape = sizes(parts[tensors])
    if prod(shape) * values.itemsize >= 1 << 63:
        raise Unfit(f"its shape {_short(shape)} is larger than any memory", "tensor-out-of-bounds")
    return TensorRef(values.dtype, shape, row_major(shape), 0, None, f"sparse ({name[6:]})")


def _nested(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    buffer, *layout = (_inner(part) for part in _taken(args, 4, 4))
    count = layout[0].shape[:1] or (0,)
    return TensorRef(buffer.dtype, count, (1,), 0, None, f"nested ({count[0]:,} tensors)")


def _jagged(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    parts = dict(_named(_taken(args, 1, 1)[0]))
    values = _inner(parts.get("values"))
    return replace(values, storage=None, unreadable="nested (jagged); its values are inside")


def _named(node: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in _pairs(node)[:_FEW] if type(key) is str]


def _meta(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    dtype, size, stride, grad = _taken(args, 4, 4)
    kind, shape, strides = dtype_name(dtype), sizes(size), sizes(stride)
    if len(shape) != len(strides):
        raise Unfit(f"it has {len(shape)} sizes and {len(strides)} strides")
    if prod(shape) * ITEMSIZE.get(kind, 1) >= 1 << 63:
        raise Unfit(f"its shape {_short(shape)} is larger than any memory", "tensor-out-of-bounds")
    return TensorRef(kind, shape, strides, 0, None, "meta: it never had values", _flag(grad))


def _from_host(work: _Recogniser, args: tuple[Any, ...]) -> TensorRef:
    """A tensor of a device without storages, saved as an array or tensor of the host."""
    data, _, _, grad = _taken(args, 4, 4)
    return replace(_inner(data), requires_grad=_flag(grad))


Rebuild = Callable[[_Recogniser, tuple[Any, ...]], TensorRef | None]

_FROM_TYPE = ("torch._tensor._rebuild_from_type_v2", "torch.tensor._rebuild_from_type_v2")
_REBUILD: dict[str, Rebuild] = {
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_nested_tensor": _nested,
    "torch.nested._internal.nested_tensor._rebuild_njt": _jagged,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_wrapper_subclass": _wrapper_subclass,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_host,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_host,
    "torch._utils._rebuild_xla_tensor": _from_host,
    **dict.fromkeys(_FROM_TYPE, _from_type),
}


def _taken(args: tuple[Any, ...], least: int, most: int) -> tuple[Any, ...]:
    """Return the arguments when there are as many as the function takes."""
    if not least <= len(args) <= most:
        raise Unfit(f"{len(args)} arguments where {least} to {most} are taken")
    return args


def _flag(value: Any) -> bool | None:
    return value if type(value) is bool else None


def dtype_name(node: Any) -> str:
    """Return the name of a dtype such as ``torch.float16``."""
    if type(node) is not Global or node.module != "torch":
        raise Unfit("its dtype is none of torch's")
    return _DTYPE_ALIASES.get(node.name, node.name)
