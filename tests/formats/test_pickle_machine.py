from __future__ import annotations

import math
import os
import pickle
import pickletools
import struct
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.errors import CorruptFile
from ckptools.formats import pickle_opcodes
from ckptools.formats.pickle_machine import (
    BrokenPickle,
    IncompletePickle,
    Limits,
    run,
)
from ckptools.formats.tensors import recognise
from ckptools.types.tree import Global, Instance, Pairs, Persistent, SetNode
from tests.builders.plain_trees import loads

PROTOCOLS = range(6)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
)
hashable = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.tuples(inner), st.tuples(inner, inner, inner, inner), st.frozensets(inner)
    ),
    max_leaves=6,
)
objects = st.recursive(
    st.one_of(scalars, st.binary().map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashable, inner),
        st.dictionaries(st.text(), inner).map(OrderedDict),
        st.sets(hashable),
    ),
    max_leaves=30,
)


def same(one: Any, other: Any) -> bool:
    """Equality that also compares types and the order of dicts."""
    return type(one) is type(other) and repr(_ordered(one)) == repr(_ordered(other))


def _ordered(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, sorted(map(repr, map(_ordered, value))))
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, dict):
        return (type(value).__name__, [(_ordered(k), _ordered(v)) for k, v in value.items()])
    if isinstance(value, (list, tuple)):
        return type(value)(map(_ordered, value))
    return value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(deadline=None, max_examples=60)
@given(value=objects)
def test_plain_objects_read_as_pickle_reads_them(protocol: int, value: Any) -> None:
    data = pickle.dumps(value, protocol)
    expected = pickle.loads(data)
    found = loads(data)
    # a bytearray is offered as bytes below protocol 5, where it is a call
    assert same(_ordered(found), _ordered(expected))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_python_pickler_agrees_with_the_c_one(protocol: int) -> None:
    value = {"a": [1, (2, 3), {4.5}], "b": b"\x00\xff", "c": "é\ud800"}
    assert loads(pickle._dumps(value, protocol)) == value  # type: ignore[attr-defined]


def test_nan_and_infinities_survive() -> None:
    found = loads(pickle.dumps([math.inf, -math.inf, math.nan, -0.0], 0))
    assert found[:2] == [math.inf, -math.inf]
    assert math.isnan(found[2])
    assert math.copysign(1, found[3]) == -1


def test_every_opcode_of_the_standard_library_has_a_handler() -> None:
    for opcode in pickletools.opcodes:
        handler = pickle_opcodes.HANDLERS[ord(opcode.code)]
        assert handler is not pickle_opcodes._unknown, opcode.name


def test_bytes_that_are_no_opcode_are_refused() -> None:
    known = {ord(opcode.code) for opcode in pickletools.opcodes}
    for byte in set(range(256)) - known:
        with pytest.raises(BrokenPickle, match=f"0x{byte:02x}"):
            run(bytes([byte]))


# -- identity --------------------------------------------------------------------------------


def test_shared_objects_stay_one_object() -> None:
    shared = [1]
    root = run(pickle.dumps({"a": shared, "b": shared}, 2)).root
    assert root.entries[0][1] is root.entries[1][1]


def test_cycles_are_kept() -> None:
    cyclic: list[Any] = []
    cyclic.append({"self": cyclic})
    root = run(pickle.dumps(cyclic, 4)).root
    assert root[0].entries[0][1] is root


def test_a_cycle_through_a_tuple_is_kept() -> None:
    inner: list[Any] = []
    outer = (inner,)
    inner.append(outer)
    root = run(pickle.dumps(outer, 2)).root
    assert type(root) is tuple
    assert root[0][0] is root


def test_dicts_keep_duplicate_and_unhashable_keys_in_order() -> None:
    data = b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02]K\x03u."
    assert [key for key, _ in run(data).root.entries] == ["a", "a", []]


def test_one_global_is_one_node() -> None:
    root = run(b"(ca\nB\nca\nB\nl.").root
    assert root[0] is root[1]


# -- what is never done ----------------------------------------------------------------------


class Payload:
    """Runs a command wherever it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_called(protocol: int, tmp_path: Path) -> None:
    result = run(pickle.dumps({"x": Payload(tmp_path / "ran")}, protocol))
    assert not (tmp_path / "ran").exists()
    call = result.root.entries[0][1]
    assert isinstance(call, Instance)
    assert call.args == (str(tmp_path / "ran"),)
    assert [use.grade for use in result.globals] == ["dangerous"]


def test_nothing_is_imported() -> None:
    root = run(b"cno.such.module\nThing\n.").root
    assert root == Global("no.such.module", "Thing")


def test_nothing_is_hashed() -> None:
    # a list, a dict and a set as keys and members, none of which Python could hash
    data = b"\x80\x04}(]K\x01}K\x02u\x8f(]}\x90\x86."
    pairs, members = run(data).root
    assert [type(key) for key, _ in pairs.entries] == [list, Pairs]
    assert [type(member) for member in members.members] == [list, Pairs]


# -- calls, states and ids -------------------------------------------------------------------


def _call(data: bytes) -> Instance:
    root = run(data).root
    assert isinstance(root, Instance)
    return root


def test_each_way_to_make_an_object_is_told_apart() -> None:
    assert _call(b"ca\nB\n(K\x01tR.").via == "REDUCE"
    assert _call(b"ca\nB\n(K\x01t\x81.").via == "NEWOBJ"
    assert _call(b"(K\x01ia\nB\n.").via == "INST"
    assert _call(b"(ca\nB\nK\x01o.").via == "OBJ"
    made = _call(b"\x80\x04ca\nB\nK\x01\x85}X\x01\x00\x00\x00kK\x02s\x92.")
    assert made.via == "NEWOBJ_EX"
    assert made.args == (1,)
    assert made.kwargs.entries == [("k", 2)]


def test_state_items_and_pairs_are_kept_apart() -> None:
    made = _call(b"ca\nB\n)R(K\x01K\x02e(K\x03K\x04uNb.")
    assert made.items == [1, 2]
    assert made.pairs == [(3, 4)]
    assert made.has_state
    assert made.state is None


def test_none_as_state_is_not_no_state() -> None:
    assert not _call(b"ca\nB\n)R.").has_state


def test_a_second_state_is_refused() -> None:
    with pytest.raises(BrokenPickle, match="twice"):
        run(b"ca\nB\n)RNbNb.")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"ca\nB\nNb.", "state is set on a Global"),
        (b"]Nb.", "state is set on a list"),
        (b")K\x01a.", "appended to a tuple"),
        (b"]K\x01K\x02s.", "set on a list"),
        (b"K\x01(K\x01K\x02u.", "set on a int"),
        (b"}(K\x01u.", "odd number"),
        (b"(K\x01d.", "odd number"),
        (b"\x80\x06.", "protocol 6"),
        (b"K\x01K\x02\x93.", "no text"),
        (b"K\x01\x82\x00.", "not positive"),
        (b"K\x01\x97.", "outside of the pickle"),
        (b"h\x05.", "never set"),
        (b"S'abc.\n.", "without quotes"),
        (b"T\xff\xff\xff\xff.", "negative length"),
        (b"p-1\n.", "empty stack|out of range"),
        (b"K\x01p99999999999999\n.", "out of range"),
    ],
)
def test_contradictions_are_refused(data: bytes, what: str) -> None:
    with pytest.raises(BrokenPickle, match=what):
        run(data)


def test_an_extension_code_is_listed_as_dangerous() -> None:
    result = run(b"\x80\x02\x82\x07.")
    assert result.root.via == "EXT"
    assert result.root.args == (7,)
    assert [use.grade for use in result.globals] == ["dangerous"]


def test_persistent_ids_of_both_kinds() -> None:
    result = run(b"(Psome id\nK\x05Qt.")
    assert [node.pid for node in result.root] == ["some id", 5]
    assert all(isinstance(node, Persistent) for node in result.root)
    assert list(result.persistents) == list(result.root)


def test_persistent_ids_can_be_answered() -> None:
    assert run(b"K\x05Q.", persistent=lambda pid: [pid]).root == [5]


def test_what_the_pickle_throws_away_is_still_told() -> None:
    result = run(b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R0K\x05Q0N.")
    assert result.root is None
    assert [use.name for use in result.globals] == ["os.system"]
    assert len(result.instances) == len(result.persistents) == 1


def test_sets() -> None:
    root = run(pickle.dumps([{1}, frozenset({2})], 4)).root
    assert [(node.members, node.frozen) for node in root] == [([1], False), ([2], True)]
    assert all(isinstance(node, SetNode) for node in root)


def test_strings_of_python_2_are_text_where_they_can_be() -> None:
    assert run(b"S'a\\n\\xc3\\xa9'\n.").root == "a\né"
    assert run(b"U\x02\xff\xfe.").root == b"\xff\xfe"


def test_end_and_protocol_are_reported() -> None:
    data = pickle.dumps([1], 4)
    result = run(b"junk" + data + b"more", start=4)
    assert result.end_offset == 4 + len(data)
    assert result.protocol == 4
    assert result.root == [1]


# -- bounds ----------------------------------------------------------------------------------


def test_opcodes_are_bounded() -> None:
    with pytest.raises(BrokenPickle, match="opcodes"):
        run(b"N0" * 20_000 + b"N.", limits=Limits(opcodes=10_000))


def test_memory_is_bounded() -> None:
    with pytest.raises(BrokenPickle, match="MiB of objects"):
        run(b"]" * 100_000 + b".", limits=Limits(memory=1 << 20))


def test_open_marks_are_bounded() -> None:
    with pytest.raises(BrokenPickle, match="nested marks"):
        run(b"(" * 100_000, limits=Limits(nesting=5_000))


def test_names_are_bounded() -> None:
    data = b"".join(b"cm\n%d\n0" % i for i in range(100)) + b"N."
    assert len(run(data).globals) == 100
    with pytest.raises(BrokenPickle, match="different globals"):
        run(data, limits=Limits(names=99))


def test_integers_are_bounded() -> None:
    digits = b"1" * 5_000
    for data in (b"L" + digits + b"L\n.", b"I" + digits + b"\n.", b"\x8b\x00\x10\x00\x00" + digits):
        with pytest.raises(BrokenPickle, match="too long"):
            run(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x8d" + struct.pack("<Q", 1 << 62) + b"a.",
        b"\x8e" + struct.pack("<Q", 1 << 63) + b"a.",
        b"\x96" + struct.pack("<Q", 1 << 40) + b"a.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"N.",
        b"X\xff\xff\xff\xffa.",
        b"B\xff\xff\xff\x7fa.",
    ],
)
def test_lengths_beyond_the_data_allocate_nothing(data: bytes) -> None:
    with pytest.raises(IncompletePickle):
        run(data)


def test_a_far_memo_index_allocates_nothing() -> None:
    assert run(b"Nr\xff\xff\xff\xff.").root is None


def test_deep_nesting_neither_recurses_nor_crashes() -> None:
    depth = 300_000
    root = run(b"]" * depth + b"a" * (depth - 1) + b".").root
    assert isinstance(root, list)
    del root


def test_deeply_nested_calls_are_freed_without_recursion() -> None:
    depth = 200_000
    result = run(b"ca\nB\nq\x00" + b"h\x00" * depth + b")" + b"R\x85" * depth + b"0N.")
    assert result.root is None
    assert len(result.instances) == depth
    del result


def test_billion_laughs_stay_small() -> None:
    body = b"\x80\x02]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(100)
    )
    started = time.perf_counter()
    run(body + b".")
    assert time.perf_counter() - started < 1


# -- damaged data ----------------------------------------------------------------------------

SAMPLE = pickle.dumps(
    {"a": [1, 2.5, "text", b"bytes", (1, 2, 3)], "b": OrderedDict(x={1, 2}), "c": 2**80}, 2
)
SAMPLES = [pickle.dumps(pickle.loads(SAMPLE), protocol) for protocol in PROTOCOLS]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_told_as_such(protocol: int) -> None:
    data = SAMPLES[protocol]
    for length in range(len(data)):
        with pytest.raises(IncompletePickle):
            run(data[:length])


@settings(deadline=None, max_examples=300)
@given(
    protocol=st.sampled_from(PROTOCOLS),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_mutants_end_in_a_tree_or_a_refusal(protocol: int, edits: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLES[protocol])
    for position, value in edits:
        data[position % len(data)] = value
    _read_or_refuse(bytes(data))


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=60))
def test_random_bytes_end_in_a_tree_or_a_refusal(data: bytes) -> None:
    _read_or_refuse(data)


opcode_bytes = st.sampled_from([ord(opcode.code) for opcode in pickletools.opcodes])


@settings(deadline=None, max_examples=300)
@given(data=st.lists(st.one_of(opcode_bytes, st.integers(0, 255)), max_size=80).map(bytes))
def test_random_opcodes_end_in_a_tree_or_a_refusal(data: bytes) -> None:
    _read_or_refuse(data + b".")


def _read_or_refuse(data: bytes) -> None:
    with suppress(CorruptFile):
        recognise(run(data), {})


def test_a_broken_pickle_names_what_it_held() -> None:
    with pytest.raises(BrokenPickle, match=r"os\.system") as caught:
        run(b"cos\nsystem\n\xff")
    assert [use.name for use in caught.value.globals] == ["os.system"]
