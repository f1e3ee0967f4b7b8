"""What is asked of every container: whether it is only one, and whether its names are plain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ckptools.formats.fault_list import FaultList
from ckptools.types.container import Container
from ckptools.types.tree import Instance, Pairs, SetNode

#: control characters, characters that reorder or hide text, and halves of characters
ODD_CHARACTERS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
#: nodes of a tree that are looked at
MAX_NODES = 1_000_000


def cross_checked(container: Container, others: Sequence[str]) -> Container:
    """Return the container with a fault for every other format that claims the same bytes.

    Keys with characters that a terminal would obey rather than print are reported, too.
    """
    faults = FaultList()
    for name in others:
        faults.add(
            "polyglot",
            "file",
            f"the file is read as {container.format}, other tools may read it as {name}",
            other=name,
        )
    for key in _odd_keys(container.root):
        faults.add("odd-key", ascii(key)[:120], "a key with invisible characters", scope="object")
    if not faults.faults():
        return container
    return replace(container, faults=(*container.faults, *faults.faults()))


def _odd_keys(root: Any) -> Iterator[str]:
    """Yield the keys of all mappings below ``root`` that hold odd characters."""
    for pairs in _mappings(root):
        for key, _ in pairs:
            if type(key) is str and not key.isprintable() and ODD_CHARACTERS.search(key):
                yield key


def _mappings(root: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Yield the pairs of every mapping-like node, each node once."""
    waiting = [root]
    seen: set[int] = set()
    while waiting and len(seen) < MAX_NODES:
        node = waiting.pop()
        if not isinstance(node, _INNER) or id(node) in seen:
            continue
        seen.add(id(node))
        pairs = _pairs(node)
        yield pairs
        waiting.extend(value for _, value in pairs)
        waiting.extend(_others(node))


_INNER = (Pairs, Instance, SetNode, list, tuple)


def _pairs(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, Pairs):
        return node.entries
    return node.pairs if isinstance(node, Instance) else []


def _others(node: Any) -> list[Any]:
    """Return what lies in a node beside its pairs."""
    if isinstance(node, (list, tuple)):
        return list(node)
    if isinstance(node, SetNode):
        return node.members
    if isinstance(node, Instance):
        return [*node.items, node.args, node.kwargs, node.state]
    return []
