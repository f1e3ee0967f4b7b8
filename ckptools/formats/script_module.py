"""Tensors of a TorchScript module, by the dotted names that its attributes spell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ckptools.formats.globals import KNOWN
from ckptools.types.container import GlobalUse
from ckptools.types.tree import Instance, Pairs, fields, is_tensor

#: How the names of classes begin whose code lies in the archive itself.
OWN_CLASSES = "__torch__."
#: Modules nested deeper than this are none that anyone wrote.
_DEEPEST = 100
_LONGEST_NAME = 200


def named_tensors(root: Any, name: str) -> list[tuple[Any, Any]]:
    """Return (dotted name, node) of every tensor below ``root``, in order of the attributes.

    A module that is used in two places is listed once.
    """
    found: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    waiting: list[tuple[str, Any, int]] = [(name, root, 0)]
    while waiting:
        path, node, depth = waiting.pop()
        if is_tensor(node):
            found.append((path, node))
            continue
        if depth >= _DEEPEST or id(node) in seen:
            continue
        seen.add(id(node))
        below = [
            (f"{path}.{key}" if path else str(key), child, depth + 1)
            for key, child in _children(node)
            if isinstance(child, (Instance, Pairs, list, tuple))
        ]
        waiting.extend(reversed(below))
    return found


def _children(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, (list, tuple)):
        return list(enumerate(node))
    pairs = node.entries if isinstance(node, Pairs) else fields(node) or []
    return [
        (key, child)
        for key, child in pairs
        if isinstance(key, (str, int)) and len(str(key)) <= _LONGEST_NAME
    ]


def vouched(uses: Iterable[GlobalUse]) -> tuple[GlobalUse, ...]:
    """Return the uses with the archive's own classes known: no Python module bears such a name."""
    return tuple(
        replace(use, grade=KNOWN) if use.name.startswith(OWN_CLASSES) else use for use in uses
    )
