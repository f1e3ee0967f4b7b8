"""The inert object tree that a pickle becomes: nothing in it was imported, called or hashed.

Scalars, lists and tuples stand for themselves.  Everything else is one of the nodes below, kept
with identity (two references to one object stay one object), so the tree can be written back.
Trees may be cyclic and arbitrarily deep: walk them iteratively, by identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ckptools.types.tensor import TensorRef


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle would have imported, e.g. ``collections.OrderedDict``."""

    module: str
    name: str

    def __str__(self) -> str:
        """Return ``module.name``."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Pairs:
    """A dict as its (key, value) pairs in order; keys may be anything, duplicates are kept."""

    entries: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class SetNode:
    """A set or frozenset as the list of its members."""

    members: list[Any] = field(default_factory=list)
    frozen: bool = False


@dataclass(eq=False, slots=True)
class Persistent:
    """A persistent id: how torch's pickles refer to a storage."""

    pid: Any


@dataclass(eq=False, slots=True)
class Instance:
    """A call that was not made: ``constructor(*args, **kwargs)`` with what was added afterwards.

    Attributes
    ----------
    constructor: usually a :class:`Global`; any node in a hostile file.
    args, kwargs: the arguments as the pickle gave them.
    via: the opcode that made it (REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, INST).
    state: the argument of BUILD, with ``has_state`` telling None from absent.
    items, pairs: what APPEND(S)/ADDITEMS and SETITEM(S) added.
    value: what the reader recognised it as (a TensorRef, a plain scalar), else None.
    """

    constructor: Any
    args: Any = ()
    kwargs: Any = None
    via: str = "REDUCE"
    state: Any = None
    has_state: bool = False
    items: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    value: Any = None


def unwrap(node: Any) -> Any:
    """Return what ``node`` was recognised as, or the node itself."""
    if isinstance(node, Instance) and node.value is not None:
        return node.value
    return node


def entries(node: Any) -> list[tuple[Any, Any]] | None:
    """Return the key-value pairs of a mapping-like node, or None when it is not one.

    A dict, an OrderedDict or defaultdict (and any object that got SETITEMS), in file order with
    the last of duplicate keys left to the caller.
    """
    if isinstance(node, Pairs):
        return node.entries
    if isinstance(node, Instance) and node.value is None:
        if node.pairs:
            return node.pairs
        if isinstance(node.constructor, Global) and node.constructor.name in _MAPPINGS:
            return _pairs_from_arguments(node)
    return None


_MAPPINGS = frozenset({"OrderedDict", "defaultdict", "dict", "Counter"})


def _pairs_from_arguments(node: Instance) -> list[tuple[Any, Any]]:
    """Return the pairs of ``OrderedDict([[key, value], ...])``, the protocol-0 spelling."""
    if isinstance(node.args, tuple) and node.args:
        first = node.args[-1]
        if isinstance(first, Pairs):
            return first.entries
        if isinstance(first, list) and all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in first
        ):
            return [(pair[0], pair[1]) for pair in first]
    return []


def fields(node: Any) -> list[tuple[Any, Any]] | None:
    """Return the attributes of an inert object (``__dict__`` and slots), or None."""
    if not isinstance(node, Instance):
        return None
    state = node.state
    halves = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    found: list[tuple[Any, Any]] = []
    for half in halves:
        found.extend(entries(half) or [])
    return found if (found or node.has_state) else None


def class_name(node: Any) -> str | None:
    """Return the dotted class name of an inert object, or None for plain data."""
    if not isinstance(node, Instance):
        return None
    constructor = node.constructor
    arguments = node.args if isinstance(node.args, tuple) else ()
    helper = isinstance(constructor, Global) and str(constructor) in (
        "copyreg._reconstructor",
        "copy_reg._reconstructor",
        "copyreg.__newobj__",
    )
    if helper and arguments and isinstance(arguments[0], Global):
        return str(arguments[0])
    return str(constructor) if isinstance(constructor, Global) else None


def pairs_of(node: Any) -> list[tuple[Any, Any]]:
    """Return the key-value pairs that were put into a dict or an object, as they stand there."""
    if type(node) is Pairs:
        return node.entries
    return node.pairs if type(node) is Instance else []


def walk(root: Any) -> Iterator[Any]:
    """Iterate over the nodes that hold others, each once, outer ones before what they hold.

    By identity and without recursion: a file may make its tree deep or cyclic.  Keys and
    constructors are not entered.
    """
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        kind = type(node)
        if kind not in _HOLDING or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if kind is Instance:
            waiting += (*node.items, node.args, node.kwargs, node.state)
            waiting += [value for _, value in node.pairs]
        elif kind is Pairs:
            waiting += [value for _, value in node.entries]
        elif kind is SetNode:
            waiting.append(node.members)  # a list that other sets may share
        else:
            waiting += node


_HOLDING = frozenset({Pairs, Instance, SetNode, list, tuple})


def is_tensor(node: Any) -> bool:
    """Return whether ``node`` stands for a tensor."""
    return isinstance(unwrap(node), TensorRef)
