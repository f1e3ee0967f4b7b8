"""The inert tree back to a pickle: globals are written by name, so no class need be importable.

The inverse of :mod:`ckptools.formats.pickle_machine`.  Nodes that were shared stay shared, cycles
stay cycles, and nothing recurses, so the depth of a file's tree does not matter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ckptools.errors import OperationError
from ckptools.types.tree import Global, Instance, Pairs, Persistent, SetNode

#: what a node becomes before it is written, e.g. a storage id renamed; identity by default
Rewrite = Callable[[Any], Any]


class _Emit:
    """Bytes to write when the encoder comes to it."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _Remember:
    """The object just written gets a memo slot."""

    __slots__ = ("node",)

    def __init__(self, node: Any) -> None:
        self.node = node


class _CloseTuple:
    """All members of a tuple are on the stack: make it, unless a cycle made it meanwhile."""

    __slots__ = ("node",)

    def __init__(self, node: tuple[Any, ...]) -> None:
        self.node = node


class _CloseArguments:
    """The arguments of an instance are complete."""

    __slots__ = ("node",)

    def __init__(self, node: Instance) -> None:
        self.node = node


def encode(root: Any, *, protocol: int = 2, rewrite: Rewrite | None = None) -> bytes:
    """Return a pickle that loads as the tree ``root``.

    Parameters
    ----------
    root: a tree of :mod:`ckptools.types.tree` nodes and plain values.
    protocol: 2 to 5; sets, frozensets and bytes are written the old way below 4 (3 for bytes).
    rewrite: called once with each node before it is written; returns the node to write instead.

    Raises
    ------
    OperationError: for a value that no pickle holds, or arguments that contain their own call.
    """
    if not 2 <= protocol <= 5:
        raise OperationError(f"pickle protocol {protocol} is not written", next="use 2 to 5")
    encoder = _Encoder(protocol, rewrite or (lambda node: node))
    return encoder.run(root)


class _Encoder:
    def __init__(self, protocol: int, rewrite: Rewrite) -> None:
        self.protocol = protocol
        self.rewrite = rewrite
        self.out = bytearray(b"\x80" + bytes([protocol]))
        self.memo: dict[int, int] = {}
        self.strings: dict[str, int] = {}
        self.globals: dict[Global, int] = {}
        self.kept: list[Any] = []  # ids stay unique only while their objects live
        self.open: set[int] = set()
        self.slots = 0

    def run(self, root: Any) -> bytes:
        todo: list[Any] = [root]
        while todo:
            item = todo.pop()
            if isinstance(item, _Emit):
                self.out += item.data
            elif isinstance(item, _Remember):
                self._remember(item.node)
            elif isinstance(item, _CloseTuple):
                self._close_tuple(item.node)
            elif isinstance(item, _CloseArguments):
                self.open.discard(id(item.node))
            else:
                todo.extend(reversed(self._write(self.rewrite(item))))
        self.out += b"."
        return bytes(self.out)

    def _slot(self) -> int:
        slot = self.slots
        self.slots += 1
        if self.protocol >= 4:
            self.out += b"\x94"
        elif slot < 256:
            self.out += b"q" + bytes([slot])
        else:
            self.out += b"r" + struct.pack("<I", slot)
        return slot

    def _recall(self, slot: int) -> None:
        self.out += b"h" + bytes([slot]) if slot < 256 else b"j" + struct.pack("<I", slot)

    def _remember(self, node: Any) -> None:
        self.memo[id(node)] = self._slot()
        self.kept.append(node)

    def _write(self, node: Any) -> list[Any]:
        """Write what can be written now; return what must follow, in order."""
        if id(node) in self.memo:
            self._recall(self.memo[id(node)])
            return []
        writer = _WRITERS.get(type(node))
        if writer is None:
            raise OperationError(f"a {type(node).__name__} cannot be written to a pickle")
        return writer(self, node) or []

    def _none(self, node: None) -> None:
        self.out += b"N"

    def _bool(self, node: bool) -> None:
        self.out += b"\x88" if node else b"\x89"

    def _int(self, node: int) -> None:
        if 0 <= node < 256:
            self.out += b"K" + bytes([node])
        elif 0 <= node < 65536:
            self.out += b"M" + struct.pack("<H", node)
        elif -(2**31) <= node < 2**31:
            self.out += b"J" + struct.pack("<i", node)
        else:
            raw = node.to_bytes(node.bit_length() // 8 + 1, "little", signed=True)
            short = len(raw) < 256
            self.out += (
                b"\x8a" + bytes([len(raw)]) if short else b"\x8b" + struct.pack("<i", len(raw))
            )
            self.out += raw

    def _float(self, node: float) -> None:
        self.out += b"G" + struct.pack(">d", node)

    def _str(self, node: str) -> None:
        if node in self.strings:
            self._recall(self.strings[node])
            return
        raw = node.encode("utf-8", "surrogatepass")
        if self.protocol >= 4 and len(raw) < 256:
            self.out += b"\x8c" + bytes([len(raw)]) + raw
        elif len(raw) < 2**32:
            self.out += b"X" + struct.pack("<I", len(raw)) + raw
        else:
            raise OperationError("a string of 4 GiB cannot be written to a pickle")
        self.strings[node] = self._slot()

    def _bytes(self, node: bytes) -> list[Any]:
        if self.protocol < 3:
            text = node.decode("latin-1")
            return [Instance(Global("_codecs", "encode"), (text, "latin1"))]
        if len(node) < 256:
            self.out += b"C" + bytes([len(node)]) + node
        else:
            self.out += b"B" + struct.pack("<I", len(node)) + node
        self._remember(node)
        return []

    def _bytearray(self, node: bytearray) -> list[Any]:
        if self.protocol < 5:
            return [Instance(Global("builtins", "bytearray"), (bytes(node),))]
        self.out += b"\x96" + struct.pack("<Q", len(node)) + bytes(node)
        self._remember(node)
        return []

    def _complex(self, node: complex) -> list[Any]:
        return [Instance(Global("builtins", "complex"), (node.real, node.imag))]

    def _tuple(self, node: tuple[Any, ...]) -> list[Any]:
        if not node:
            self.out += b")"
            return []
        mark = [_Emit(b"(")] if len(node) > 3 else []
        return [*mark, *node, _CloseTuple(node)]

    def _close_tuple(self, node: tuple[Any, ...]) -> None:
        if id(node) in self.memo:  # a list inside led back here and made it already
            self.out += b"1" if len(node) > 3 else b"0" * len(node)
            self._recall(self.memo[id(node)])
            return
        self.out += {1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(node), b"t")
        self._remember(node)

    def _list(self, node: list[Any]) -> list[Any]:
        self.out += b"]"
        self._remember(node)
        return [_Emit(b"("), *node, _Emit(b"e")] if node else []

    def _pairs(self, node: Pairs) -> list[Any]:
        self.out += b"}"
        self._remember(node)
        return _set_items(node.entries)

    def _set(self, node: SetNode) -> list[Any]:
        name = "frozenset" if node.frozen else "set"
        if self.protocol < 4:
            if id(node) in self.open:
                raise OperationError("a set that contains itself needs pickle protocol 4")
            self.open.add(id(node))
            made = Instance(Global("builtins", name), (list(node.members),))
            return [made, _Remember(node)]
        if node.frozen:
            return [_Emit(b"("), *node.members, _Emit(b"\x91"), _Remember(node)]
        self.out += b"\x8f"
        self._remember(node)
        return [_Emit(b"("), *node.members, _Emit(b"\x90")]

    def _global(self, node: Global) -> list[Any]:
        if node in self.globals:
            self._recall(self.globals[node])
            return []
        if self.protocol >= 4:
            self._str(node.module)
            self._str(node.name)
            self.out += b"\x93"
        elif "\n" in node.module + node.name:
            raise OperationError("a global with a line break in its name cannot be written")
        else:
            self.out += f"c{node.module}\n{node.name}\n".encode()
        self.globals[node] = self._slot()
        return []

    def _persistent(self, node: Persistent) -> list[Any]:
        return [node.pid, _Emit(b"Q"), _Remember(node)]

    def _instance(self, node: Instance) -> list[Any]:
        if id(node) in self.open:
            raise OperationError("an object among its own arguments cannot be written")
        self.open.add(id(node))
        made = self._make(node)
        filled: list[Any] = [_CloseArguments(node), _Remember(node)]
        if node.items:
            filled += [_Emit(b"("), *node.items, _Emit(b"e")]
        filled += _set_items(node.pairs)
        if node.has_state:
            filled += [node.state, _Emit(b"b")]
        return made + filled

    def _make(self, node: Instance) -> list[Any]:
        if node.via in ("OBJ", "INST"):
            return [_Emit(b"("), node.constructor, *node.args, _Emit(b"o")]
        if node.via == "NEWOBJ":
            return [node.constructor, node.args, _Emit(b"\x81")]
        if node.via == "NEWOBJ_EX" and self.protocol >= 4:
            return [node.constructor, node.args, node.kwargs, _Emit(b"\x92")]
        if node.via == "NEWOBJ_EX":
            raise OperationError("keyword arguments of a constructor need pickle protocol 4")
        return [node.constructor, node.args, _Emit(b"R")]


def _set_items(pairs: list[tuple[Any, Any]]) -> list[Any]:
    if not pairs:
        return []
    flat = [part for pair in pairs for part in pair]
    return [_Emit(b"("), *flat, _Emit(b"u")]


_WRITERS: dict[type, Callable[[_Encoder, Any], list[Any] | None]] = {
    type(None): _Encoder._none,
    bool: _Encoder._bool,
    int: _Encoder._int,
    float: _Encoder._float,
    complex: _Encoder._complex,
    str: _Encoder._str,
    bytes: _Encoder._bytes,
    bytearray: _Encoder._bytearray,
    tuple: _Encoder._tuple,
    list: _Encoder._list,
    Pairs: _Encoder._pairs,
    SetNode: _Encoder._set,
    Global: _Encoder._global,
    Persistent: _Encoder._persistent,
    Instance: _Encoder._instance,
}
