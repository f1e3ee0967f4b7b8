"""Inert trees turned into ordinary Python objects, to be compared with what pickle gives."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ckptools.formats.pickle_machine import run
from ckptools.formats.tensors import recognise
from ckptools.types.tree import Instance, Pairs, SetNode, class_name, entries


def loads(data: bytes) -> Any:
    """Return what ``pickle.loads`` would, for plain data, by way of the symbolic machine."""
    result = run(data)
    recognise(result, {})
    return plain(result.root)


def plain(node: Any) -> Any:
    """Return the Python object that a tree of plain data stands for."""
    if isinstance(node, Instance):
        if node.value is not None:
            return plain(node.value)
        if class_name(node) == "collections.OrderedDict":
            return OrderedDict((plain(k), plain(v)) for k, v in entries(node) or [])
        if class_name(node) in ("builtins.bytearray", "__builtin__.bytearray"):
            return bytearray()
        raise AssertionError(f"no plain value: {node.constructor}")
    if isinstance(node, Pairs):
        return {plain(k): plain(v) for k, v in node.entries}
    if isinstance(node, SetNode):
        return (frozenset if node.frozen else set)(map(plain, node.members))
    if isinstance(node, list):
        return [plain(item) for item in node]
    if isinstance(node, tuple):
        return tuple(plain(item) for item in node)
    return node
