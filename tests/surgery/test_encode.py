"""What the encoder writes, Python's own unpickler reads back as the tree said."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.errors import OperationError
from ckptools.surgery.encode import encode
from ckptools.types.tree import Global, Instance, Pairs, SetNode

PROTOCOLS = [2, 3, 4, 5]

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.binary().map(bytearray)
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers())
        | st.sets(st.text())
    ),
    max_leaves=20,
)


def node(value: Any) -> Any:
    """The tree that a reader would make of a plain object."""
    if isinstance(value, dict):
        return Pairs([(key, node(item)) for key, item in value.items()])
    if isinstance(value, (set, frozenset)):
        return SetNode([node(item) for item in value], isinstance(value, frozenset))
    if isinstance(value, (list, tuple)):
        return type(value)(node(item) for item in value)
    return value


@given(plain, st.sampled_from(PROTOCOLS))
def test_plain_objects_come_back(value: Any, protocol: int) -> None:
    loaded = pickle.loads(encode(node(value), protocol=protocol))
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_gets_its_state_items_and_pairs(protocol: int) -> None:
    namespace = Instance(
        Global("argparse", "Namespace"),
        (),
        via="NEWOBJ",
        state=Pairs([("lr", 0.1)]),
        has_state=True,
    )
    ordered = Instance(Global("collections", "OrderedDict"), (), pairs=[("b", 1), ("a", namespace)])
    loaded = pickle.loads(encode(ordered, protocol=protocol))
    assert loaded == OrderedDict(b=1, a=Namespace(lr=0.1))
    assert list(loaded) == ["b", "a"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_nodes_stay_shared(protocol: int) -> None:
    shared = Pairs([("x", 1)])
    pair = (shared, shared)
    first, second, third = pickle.loads(encode([pair, shared, pair], protocol=protocol))
    assert first is third
    assert first[0] is first[1] is second


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cycles_through_lists_dicts_and_tuples(protocol: int) -> None:
    inside: list[Any] = []
    outer = (inside, 1, 2, 3)
    inside.append(outer)
    loaded = pickle.loads(encode(outer, protocol=protocol))
    assert loaded[0][0] is loaded
    own = Pairs([])
    own.entries.append(("me", own))
    loaded = pickle.loads(encode(own, protocol=protocol))
    assert loaded["me"] is loaded


def test_depth_does_not_matter() -> None:
    deep: Any = None
    for _ in range(200_000):
        deep = [deep]
    assert encode(deep).count(b"]") >= 200_000


def test_more_than_256_shared_objects() -> None:
    shared = [[index] for index in range(400)]
    loaded = pickle.loads(encode([shared, list(shared)]))
    assert all(a is b for a, b in zip(*loaded, strict=True))


def test_rewrite_replaces_nodes_everywhere() -> None:
    tree = Pairs([("old", [Global("builtins", "int")])])
    renamed = encode(tree, rewrite=lambda n: "new" if n == "old" else n)
    assert pickle.loads(renamed) == {"new": [int]}


def test_what_no_pickle_holds_is_refused() -> None:
    loop = Instance(Global("builtins", "list"))
    loop.args = (loop,)
    with pytest.raises(OperationError, match="among its own arguments"):
        encode(loop)
    with pytest.raises(OperationError, match="keyword arguments"):
        encode(Instance(Global("a", "b"), (), Pairs(), via="NEWOBJ_EX"))
    with pytest.raises(OperationError, match="object cannot be written"):
        encode(object())
    with pytest.raises(OperationError, match="protocol 1"):
        encode(1, protocol=1)
