"""Looking at inert trees: mappings by text key, plain values, short descriptions.

Everything here is safe on hostile trees: walks are iterative, bounded in depth and number of
nodes, and no key or object of the file is hashed, compared or printed by its own methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from ckptools.formats.cross_checks import LARGEST_MAPPING
from ckptools.layouts.scalars import number
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import (
    Global,
    Instance,
    Pairs,
    SetNode,
    class_name,
    entries,
    fields,
    unwrap,
)

#: Plain values are taken this deep and this many; the rest is cut off.
DEPTH, NODES = 12, 20_000
#: Longer texts are cut.
TEXT = 100_000
#: Tensors are looked for this deep in what no layout understands.
SEARCH_DEPTH, SEARCH_NODES = 64, 300_000

#: What stands for a value that was cut off.
CUT = "…"

_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")


def key_text(key: Any) -> str:
    """Return a mapping's key as text, whatever it is."""
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return key[:200].decode("utf-8", "backslashreplace")
    if key is None or isinstance(key, (bool, int, float)):
        return _short_number(key)
    if isinstance(key, tuple):
        return "(" + ", ".join(_atom(part) for part in key[:8]) + ")"
    return _atom(key)


def _atom(node: Any) -> str:
    if isinstance(node, str):
        return node[:200]
    if node is None or isinstance(node, (bool, int, float)):
        return _short_number(node)
    return f"<{_kind(node)}>"


def _short_number(value: int | float | None) -> str:
    """Return a number as text; a file may hold integers too long for Python to print."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"<integer of {value.bit_length()} bits>"
    text = str(value)
    return f"{value:.6g}" if isinstance(value, float) and len(text) > 12 else text


def mapping(node: Any) -> dict[str, Any] | None:
    """Return a mapping-like node by text key (the last of duplicates), or None."""
    pairs = entries(node)
    return None if pairs is None else _by_text(pairs)


def attributes(node: Any) -> dict[str, Any]:
    """Return the attributes of an inert object by name; empty for anything else."""
    return _by_text(fields(node) or [])


def _by_text(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Return pairs by text key, as many as are looked at."""
    return {key_text(key): value for key, value in pairs[:LARGEST_MAPPING]}


def sequence(node: Any) -> list[Any] | None:
    """Return the members of a list, tuple or list-like object, or None."""
    node = unwrap(node)
    if isinstance(node, (list, tuple)):
        return list(node[:LARGEST_MAPPING])
    if isinstance(node, Instance) and node.items and not node.pairs:
        return node.items
    return None


def _kind(node: Any) -> str:
    """Return the class name of an object, or the type of plain data."""
    if isinstance(node, Global):
        return str(node)
    return class_name(node) or type(node).__name__


def describe(node: Any) -> str:
    """Return in a few words what a node is; never its content in full."""
    found = unwrap(node)
    if isinstance(found, TensorRef):
        value = number(found) if not found.shape else None
        text = f"{found.dtype} tensor {list(found.shape)}"
        return text if value is None else f"{_short_number(value)} ({found.dtype})"
    if found is None or isinstance(found, (bool, int, float, complex)):
        return "None" if found is None else _describe_number(found)
    if isinstance(found, str):
        return ascii(found) if len(found) <= 60 else f"text of {len(found)} characters"
    if isinstance(found, bytes):
        return f"{len(found)} bytes"
    if isinstance(found, Instance) and not _is_mapping_class(found):
        return f"object of {_kind(found)}"
    pairs = entries(found)
    if pairs is not None:
        return f"mapping of {len(pairs)}"
    if isinstance(found, (list, tuple)):
        return f"{type(found).__name__} of {len(found)}"
    if isinstance(found, SetNode):
        return f"set of {len(found.members)}"
    return f"class {found}" if isinstance(found, Global) else f"object of {_kind(found)}"


def _describe_number(value: complex) -> str:
    return str(value) if isinstance(value, complex) else _short_number(value)


def _is_mapping_class(node: Instance) -> bool:
    name = class_name(node) or ""
    return name in ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")


def plain(node: Any) -> Any:
    """Return ``node`` as plain values (dict, list, str, numbers, None), cut where it is too much.

    Configuration objects (argparse.Namespace, omegaconf, mmengine's Config, dataclasses) become
    dicts, enumerations their values, paths text, 0-dim tensors numbers, other tensors and unknown
    objects a short description.
    """
    top: list[Any] = []
    work: list[tuple[Any, Any, Any, int]] = [(node, top, None, 0)]
    budget = NODES
    while work:
        current, parent, key, depth = work.pop()
        value, children = _plain_one(current, depth)
        budget -= 1
        if budget < 0:
            value, children = CUT, []
        if isinstance(parent, list):
            parent.append(value)
        else:
            parent[key] = value
        work.extend((child, value, name, depth + 1) for name, child in reversed(children))
    return top[0]


def _plain_one(node: Any, depth: int) -> tuple[Any, list[tuple[Any, Any]]]:
    """Return an empty container with its children, or a finished value with none."""
    node = _configuration(unwrap(node))
    if isinstance(node, TensorRef):
        value = number(node)
        return (f"<{describe(node)}>" if value is None else value), []
    if isinstance(node, str):
        return (node if len(node) <= TEXT else node[:TEXT] + CUT), []
    if node is None or isinstance(node, (bool, float)):
        return node, []
    if isinstance(node, int):
        return (node if node.bit_length() <= 256 else _short_number(node)), []
    return _plain_container(node, depth)


def _plain_container(node: Any, depth: int) -> tuple[Any, list[tuple[Any, Any]]]:
    pairs = _items(node)
    if pairs is not None:
        return (CUT, []) if depth >= DEPTH else ({}, pairs)
    members = node.members if isinstance(node, SetNode) else sequence(node)
    if members is not None:
        return (CUT, []) if depth >= DEPTH else ([], list(enumerate(members[:NODES])))
    return _plain_object(node), []


def _items(node: Any) -> list[tuple[Any, Any]] | None:
    """Return the named parts of a mapping or of an object with attributes."""
    pairs = entries(node)
    if pairs is None and isinstance(node, Instance) and not node.items:
        pairs = fields(node) or _first_of_state(node)
    return None if pairs is None else [(key_text(key), value) for key, value in pairs[:NODES]]


def _first_of_state(node: Instance) -> list[tuple[Any, Any]] | None:
    """Return the mapping that leads a tuple state, as mmengine's Config has it."""
    if isinstance(node.state, tuple) and node.state:
        return entries(node.state[0])
    return None


def _configuration(node: Any) -> Any:
    """Return what an omegaconf node wraps."""
    for _ in range(DEPTH):
        if not isinstance(node, Instance) or not (class_name(node) or "").startswith("omegaconf."):
            break
        held = attributes(node)
        if "_content" not in held and "_val" not in held:
            break
        node = unwrap(held.get("_content", held.get("_val")))
    return node


def _plain_object(node: Any) -> Any:
    """Return an object without attributes as text: paths, enumerations, classes, others."""
    if isinstance(node, Global):
        return str(node)
    arguments = node.args if isinstance(node, Instance) else ()
    if isinstance(arguments, tuple) and arguments and all(isinstance(a, str) for a in arguments):
        if (class_name(node) or "").rpartition(".")[2] in _PATHS:
            return "/".join(arguments).replace("//", "/")
        if len(arguments) == 1:
            return arguments[0]
    if isinstance(arguments, tuple) and len(arguments) == 1 and type(arguments[0]) is int:
        return arguments[0]
    return f"<{describe(node)}>"


def tensors_below(
    node: Any, path: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, TensorRef]]:
    """Yield (dotted path, tensor) of everything below ``node``, each node once, depth first.

    ``seen`` lets several searches pass over what one of them has met; identities are added to it.
    """
    seen = set() if seen is None else seen
    last = len(seen) + SEARCH_NODES
    work: list[tuple[str, Any, int]] = [(path, node, 0)]
    while work and len(seen) < last:
        where, current, depth = work.pop()
        found = unwrap(current)
        if isinstance(found, TensorRef):
            yield where, found
            continue
        if id(found) in seen or depth >= SEARCH_DEPTH or not isinstance(found, _INNER):
            continue
        seen.add(id(found))
        room = max(SEARCH_NODES - len(work), 0)
        below = [
            (f"{where}.{step}" if where else step, child, depth + 1)
            for step, child in islice(_searched_children(found), room)
        ]
        work.extend(reversed(below))


def holds_tensors(node: Any, barren: set[int]) -> bool:
    """Return whether a tensor lies at or below ``node``.

    ``barren`` takes the nodes below which there is none: a file may let a thousand of its members
    share one large list, which is searched once then.
    """
    work: list[Any] = [node]
    met: set[int] = set()
    while work and len(met) < SEARCH_NODES:
        found = unwrap(work.pop())
        if isinstance(found, TensorRef):
            return True
        if not isinstance(found, _INNER) or id(found) in met or id(found) in barren:
            continue
        met.add(id(found))
        room = max(SEARCH_NODES - len(work), 0)
        work.extend(child for _, child in islice(_searched_children(found), room))
    barren |= met
    return False


_INNER = (Pairs, Instance, SetNode, list, tuple)
_SEARCHED = (*_INNER, TensorRef)


def _searched_children(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the children that are tensors or may hold some; of numbers there may be millions."""
    return (pair for pair in _children(node) if isinstance(pair[1], _SEARCHED))


def _children(node: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(node, SetNode):
        return [("members", node.members)]  # a list that other sets may share
    if isinstance(node, (list, tuple)):
        return ((str(index), child) for index, child in enumerate(node))
    named = [*(entries(node) or []), *(fields(node) or [])]
    listed = enumerate(node.items) if isinstance(node, Instance) else ()
    return ((key_text(key), child) for key, child in (*named, *listed))
