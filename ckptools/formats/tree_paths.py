"""Where a node lies in an inert tree, spelled as a user would spell it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ckptools.types.tree import Instance, Pairs, Persistent, SetNode, entries

#: Longer paths are cut in the middle.
_LONGEST = 300


def locate(root: Any, nodes: Iterable[Any]) -> dict[int, str]:
    """Return a dotted path by ``id`` for those of ``nodes`` that lie in the tree.

    Each node gets the first path met, walking breadth first and by identity.
    """
    wanted = {id(node) for node in nodes}
    parents: dict[int, tuple[int, str]] = {id(root): (0, "")}
    found: dict[int, str] = {}
    level: list[Any] = [root]
    while level and wanted:
        below: list[Any] = []
        for node in level:
            if id(node) in wanted:
                wanted.discard(id(node))
                found[id(node)] = _path(id(node), parents)
            for step, child in _children(node):
                if id(child) not in parents and isinstance(child, _INNER):
                    parents[id(child)] = (id(node), step)
                    below.append(child)
        level = below
    return found


_INNER = (Pairs, Instance, SetNode, Persistent, list, tuple)


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield (step, child) for everything inside ``node``."""
    if isinstance(node, Pairs):
        yield from _keyed(node.entries)
    elif isinstance(node, (list, tuple)):
        yield from ((str(index), child) for index, child in enumerate(node))
    elif isinstance(node, SetNode):
        yield "", node.members  # a list that other sets may share
    elif isinstance(node, Instance):
        yield from _keyed(entries(node) or [])
        yield from ((str(index), child) for index, child in enumerate(node.items))
        if isinstance(node.args, tuple):
            yield from (("", child) for child in node.args)
        yield from (("", child) for child in (node.state, node.args, node.kwargs))
        yield "", node.constructor


def _keyed(pairs: list[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    for key, value in pairs:
        yield (str(key) if isinstance(key, (str, int)) else "?"), value
        yield "?", key


def _path(node: int, parents: dict[int, tuple[int, str]]) -> str:
    steps: list[str] = []
    while node:
        node, step = parents[node]
        if step:
            steps.append(step[:_LONGEST])
        if len(steps) > _LONGEST:
            break
    text = ".".join(reversed(steps))
    return text if len(text) <= _LONGEST else f"{text[:147]}...{text[-150:]}"
