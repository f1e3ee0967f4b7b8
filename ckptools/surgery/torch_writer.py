"""A tree with tensors written as a new torch zip, storages shared as they were.

Tensors keep the calls that rebuild them, whatever wraps them (``Parameter``, subclasses); only the
persistent ids change.  A tensor that comes without such a call (from safetensors) gets one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ckptools.errors import OperationError
from ckptools.formats.nested_storages import LOADER
from ckptools.formats.plain_values import called
from ckptools.sources.arrays import iter_chunks
from ckptools.surgery.encode import Rewrite, encode
from ckptools.surgery.output import Moved
from ckptools.surgery.segments import Fresh
from ckptools.surgery.zip_writer import TorchZipWriter, Writable
from ckptools.types.source import Source
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import Global, Instance, Pairs, Persistent, SetNode

#: storage classes by dtype; what is missing here is written as plain bytes with its dtype beside
CLASSES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "complex128": "ComplexDoubleStorage",
    "complex64": "ComplexFloatStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


def raw(chunk: np.ndarray[Any, Any]) -> memoryview:
    """Return the bytes of an array, as they are in memory."""
    return memoryview(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)


def payload(storage: Storage) -> Iterator[memoryview]:
    """Yield the bytes of a storage as they stand in its file, inflated."""
    whole = TensorRef(
        "uint8", (storage.nbytes,), (1,), storage=replace(storage, byteorder="little")
    )
    for chunk in iter_chunks(whole, elements=4 << 20):
        yield raw(chunk)


def write_tree(
    file: Writable,
    root: Any,
    *,
    folder: str,
    protocol: int = 2,
    rewrite: Rewrite | None = None,
    payloads: Mapping[Storage, Fresh] | None = None,
    home: Source | None = None,
) -> list[Moved]:
    """Write ``root`` and every storage that its tensors view.

    Parameters
    ----------
    file: an empty binary file.
    root: an inert tree; its tensors are recognised nodes or :class:`TensorRef` themselves.
    folder: the archive's inner folder, the stem of the file's name.
    rewrite: replacements of nodes, made first; what they leave out is not written.
    payloads: new bytes for some storages.
    home: the file that is being rewritten.

    Returns what stands in both files, for undo.

    Raises
    ------
    OperationError: a storage that nothing recognised, or storages of both byte orders.
    """
    plan, edit, fresh = _Storages(), rewrite or _same, payloads or {}
    plan.collect(root, edit)
    pickle = encode(root, protocol=protocol, rewrite=lambda node: plan.rewrite(edit(node)))
    order = plan.byteorder().encode()
    writer = TorchZipWriter(file, folder)
    writer.add("data.pkl", [pickle], len(pickle))
    writer.add("byteorder", [order], len(order))
    moved: list[Moved] = []
    for storage, key in plan.keys.items():
        moved += carry(writer, f"data/{key}", storage, fresh.get(storage), home)
    writer.add("version", [b"3\n"], 2)
    writer.finish()
    return moved


def carry(
    writer: TorchZipWriter,
    name: str,
    storage: Storage,
    new: Fresh | None = None,
    home: Source | None = None,
) -> Iterator[Moved]:
    """Write a storage's record, with ``new`` bytes or as it is; yield what was only moved.

    ``home`` is the file that is being rewritten: what comes from another one was not moved.
    """
    if new is not None:
        writer.add(name, new.chunks(), new.length)
        return
    start = writer.add(name, payload(storage), storage.nbytes)
    if storage.deflated is None and storage.nbytes and storage.source is home:
        yield Moved(storage.start, start, storage.nbytes)


def _same(node: Any) -> Any:
    return node


#: how often a tensor of a subclass may be wrapped in others
_WRAPPED = 8


class _Storages:
    """Which storage gets which key, and how the nodes that refer to it are written."""

    def __init__(self) -> None:
        self.keys: dict[Storage, str] = {}
        self.known: dict[int, Storage] = {}  # by id of the Persistent node
        self.built: dict[int, Instance] = {}  # by id of a bare TensorRef

    def collect(self, root: Any, edit: Rewrite) -> None:
        """Find the storage behind every persistent id that a recognised tensor uses."""
        for node in nodes(root, edit):
            if isinstance(node, Instance) and isinstance(node.value, TensorRef):
                self._note(node, node.value)

    def _note(self, node: Instance, ref: TensorRef) -> None:
        first = _viewed(node)
        if first is not None and ref.storage is not None:
            self.known[id(first)] = ref.storage

    def key(self, storage: Storage) -> str:
        """Return the key of a storage, the next free number at first."""
        return self.keys.setdefault(storage, str(len(self.keys)))

    def byteorder(self) -> str:
        """Return the byte order that all storages share."""
        orders = {storage.byteorder for storage in self.keys} or {"little"}
        if len(orders) > 1:
            raise OperationError("storages of both byte orders cannot go into one file")
        return orders.pop()

    def rewrite(self, node: Any) -> Any:
        """Return what is written in place of ``node``."""
        if isinstance(node, TensorRef):
            return self.built.setdefault(id(node), rebuilding(node, self.key))
        if isinstance(node, Persistent):
            return self._persistent(node)
        if isinstance(node, Instance) and isinstance(node.value, TensorRef):
            if _storage_inside(node):
                return self.built.setdefault(id(node), rebuilding(node.value, self.key))
            return self._without_view(node, node.value)
        return node

    def _persistent(self, node: Persistent) -> Persistent:
        if isinstance(node.pid, Final):
            return Persistent(tuple(node.pid))
        if id(node) not in self.known:
            raise OperationError("a storage that no tensor views cannot be carried over")
        kind, key, location, numel = node.pid[1:5]
        del key
        return Persistent(("storage", kind, self.key(self.known[id(node)]), location, numel))

    def _without_view(self, node: Instance, ref: TensorRef) -> Instance:
        """Count a view's offset from the start of the storage: zips know no storage views."""
        first = node.args[0] if isinstance(node.args, tuple) and node.args else None
        pid: tuple[Any, ...] = first.pid if isinstance(first, Persistent) else ()
        if len(pid) < 6 or pid[5] is None or len(node.args) < 2:
            return node
        moved = Instance(node.constructor, (first, ref.offset, *node.args[2:]), via=node.via)
        return self.built.setdefault(id(node), moved)


def _viewed(node: Instance) -> Persistent | None:
    """Return the storage that a tensor's call views; subclasses wrap the arguments of another."""
    args = node.args
    for _ in range(_WRAPPED):
        if not isinstance(args, tuple) or not args:
            return None
        if isinstance(args[0], Persistent):
            return args[0]
        args = args[2] if len(args) > 2 else None
    return None


def _storage_inside(node: Instance) -> bool:
    """Return whether a tensor's storage lies in the pickle itself, which no torch file does."""
    first = node.args[0] if isinstance(node.args, tuple) and node.args else None
    return isinstance(first, Instance) and called(first) == LOADER


def rebuilding(ref: TensorRef, key: Callable[[Storage], str]) -> Instance:
    """Return the call that rebuilds a tensor which has none; ``key`` names its storage."""
    if ref.storage is None:
        raise OperationError(f"a tensor cannot be carried over: {ref.unreadable}")
    plain = ref.dtype in CLASSES
    kind = Global("torch", CLASSES[ref.dtype]) if plain else UNTYPED
    numel = ref.storage.nbytes // (ref.itemsize if plain else 1)
    pid = Final(("storage", kind, key(ref.storage), "cpu", numel))
    hooks = Instance(Global("collections", "OrderedDict"), ())
    shared = (Persistent(pid), ref.offset, ref.shape, ref.strides, False, hooks)
    if plain:
        return Instance(Global("torch._utils", "_rebuild_tensor_v2"), shared)
    dtype = Global("torch", ref.dtype)
    return Instance(Global("torch._utils", "_rebuild_tensor_v3"), (*shared, dtype))


class Final(tuple[Any, ...]):
    """A persistent id that is already the new file's."""


UNTYPED = Global("torch.storage", "UntypedStorage")


def nodes(root: Any, edit: Rewrite = _same) -> Iterator[Any]:
    """Yield all that the encoder meets, once and as ``edit`` leaves it.

    Other than :func:`ckptools.types.tree.walk` that is also keys, constructors, persistent ids and
    what holds nothing.
    """
    todo, seen = [root], {id(root)}
    while todo:
        node = edit(todo.pop())
        yield node
        for child in _children(node):
            if id(child) not in seen:
                seen.add(id(child))
                todo.append(child)


def _children(node: Any) -> list[Any]:
    """Return the nodes directly below ``node`` that may hold others."""
    if isinstance(node, Pairs):
        return [part for pair in node.entries for part in pair]
    if isinstance(node, (list, tuple)):
        return list(node)
    if isinstance(node, SetNode):
        return node.members
    if isinstance(node, Persistent):
        return [node.pid]
    if isinstance(node, Instance):
        pairs = [part for pair in node.pairs for part in pair]
        return [node.constructor, node.args, node.kwargs, node.state, *node.items, *pairs]
    return []
