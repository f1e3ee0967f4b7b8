"""Where things lie in the inert tree, so that an operation can edit them there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ckptools.errors import OperationError
from ckptools.surgery.edits import same_key
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState
from ckptools.types.tree import Instance, entries, fields, unwrap


def child(node: Any, key: Any) -> Any:
    """Return what lies under ``key`` of a mapping node; the last of duplicates, as Python would.

    Raises KeyError when there is no such entry.
    """
    found = [value for name, value in entries(node) or fields(node) or [] if same_key(name, key)]
    if not found:
        raise KeyError(key)
    return found[-1]


def parent(root: Any, path: str) -> tuple[Any, Any]:
    """Return the mapping (or list) that holds what lies at a dotted path, and its key there.

    Raises KeyError when the path leads nowhere.
    """
    if not path:
        raise KeyError(path)
    for head, rest in _splits(path):
        try:
            inner = _step(root, head)
            if not rest:
                return root, head
            return parent(inner, rest)
        except KeyError:
            continue
    raise KeyError(path)


def follow(root: Any, path: str) -> Any:
    """Return the node at a dotted path; keys may contain dots themselves, lists take numbers.

    Raises KeyError when the path leads nowhere.
    """
    if not path:
        return root
    for head, rest in _splits(path):
        try:
            return follow(_step(root, head), rest)
        except KeyError:
            continue
    raise KeyError(path)


def at(root: Any, path: Iterable[str]) -> Any:
    """Return the node below some keys; KeyError when there is none."""
    for key in path:
        root = unwrap(_step(root, key))
    return root


def _splits(path: str) -> Iterator[tuple[str, str]]:
    """Yield (first key, rest) for every dot, the shortest key first."""
    words = path.split(".")
    for count in range(1, len(words) + 1):
        yield ".".join(words[:count]), ".".join(words[count:])


def _step(node: Any, key: str) -> Any:
    if isinstance(node, (list, tuple)) and key.isdecimal() and int(key) < len(node):
        return node[int(key)]
    return child(node, key)


def optimizer_node(checkpoint: Checkpoint, optimizer: OptimizerState) -> Any:
    """Return the state dict (or inert object) of an optimizer in the file's tree."""
    try:
        return follow(checkpoint.container.root, optimizer.key)
    except KeyError:
        raise OperationError(
            "the optimizer cannot be found in the file's tree",
            where=f"{checkpoint.path}: {optimizer.key}",
        ) from None


def state_node(optimizer: Any, state: ParameterState) -> Any:
    """Return the mapping of one parameter's state, or None where the file has none."""
    try:
        states = child(optimizer, "state")
    except KeyError:
        return None
    return _Index.of(states).get(state.id)


class _Index:
    """The entries of one mapping node by plain key, made once for all parameters."""

    last: tuple[Any, dict[Any, Any]] = (None, {})

    @classmethod
    def of(cls, node: Any) -> dict[Any, Any]:
        """Return the entries of ``node``; the last node asked for is remembered."""
        if cls.last[0] is not node:
            plain = ((k, v) for k, v in entries(node) or [] if isinstance(k, (str, int)))
            cls.last = (node, dict(plain))
        return cls.last[1]


def group_node(optimizer: Any, index: int) -> Any:
    """Return the mapping of one parameter group; KeyError when there is none."""
    groups = child(optimizer, "param_groups")
    listed = groups.items if isinstance(groups, Instance) else groups
    if not isinstance(listed, (list, tuple)) or not 0 <= index < len(listed):
        raise KeyError(index)
    return unwrap(listed[index])
