from __future__ import annotations

import datetime
import pickle
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ckptools.formats.pickle_machine import run
from ckptools.formats.tensors import recognise
from ckptools.sources.arrays import read_array
from ckptools.types.container import Fault
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import Instance, SetNode, unwrap
from tests.builders.torch_files import numbers, text, whole


def read(data: bytes) -> tuple[Any, tuple[Fault, ...]]:
    result = run(data)
    found = recognise(result, {})
    return unwrap(result.root), found.faults


def call(name: str, arguments: bytes, state: bytes = b"") -> bytes:
    module, _, attribute = name.rpartition(".")
    ending = state + b"b" if state else b""
    return b"c%b\n%b\n(" % (module.encode(), attribute.encode()) + arguments + b"tR" + ending + b"."


# -- what numpy writes -----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(6.0).reshape(2, 3),
        lambda: np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        lambda: np.arange(3, dtype=">f8"),
        lambda: np.array(2.5),
        lambda: np.array([], dtype=np.uint64),
        lambda: np.array([True, False]),
        lambda: np.array([1 + 2j], dtype=np.complex64),
        lambda: np.arange(4, dtype=np.float16)[::2],
    ],
)
def test_arrays_of_numpy(make: Callable[[], np.ndarray[Any, Any]], protocol: int) -> None:
    array = make()
    ref, faults = read(pickle.dumps(array, protocol))
    assert faults == ()
    assert isinstance(ref, TensorRef)
    assert ref.shape == array.shape
    assert read_array(ref).tolist() == array.tolist()


@pytest.mark.parametrize(
    "array",
    [
        np.array(["text"]),
        np.array([object], dtype=object),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
    ],
)
def test_arrays_that_are_no_tensors_stay_inert(array: np.ndarray[Any, Any]) -> None:
    node, faults = read(pickle.dumps(array, 2))
    assert isinstance(node, Instance)
    assert faults == ()


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5),
        np.float16(-2),
        np.int8(-3),
        np.uint64(2**63),
        np.bool_(False),
        np.complex128(1 - 1j),
        np.dtype(">i4").type(7),
    ],
)
def test_scalars_of_numpy(value: Any, protocol: int) -> None:
    found, faults = read(pickle.dumps(value, protocol))
    assert faults == ()
    assert found == value.item()
    assert type(found) is type(value.item())


def test_scalars_without_a_plain_number_stay_inert() -> None:
    node, faults = read(pickle.dumps(np.datetime64("2020-01-01"), 2))
    assert isinstance(node, Instance)
    assert faults == ()
    node, faults = read(pickle.dumps(ml_dtypes.bfloat16(1.5), 2))
    assert faults == ()


def test_other_objects_stay_inert() -> None:
    node, faults = read(pickle.dumps(datetime.date(2020, 1, 2), 2))
    assert isinstance(node, Instance)
    assert faults == ()


def test_many_arrays_on_one_text_encode_it_once() -> None:
    """A small pickle must not become large by naming the same data often."""
    data = b"\xc3\xa9" * 50_000
    body = (
        b"X" + struct.pack("<I", len(data)) + data + b"q\x010"
        b"ccodecs\nx\n0c_codecs\nencode\nq\x00"
        + b"0h\x00h\x01X\x06\x00\x00\x00latin1\x86Rq\x02" * 500
        + b"."
    )
    result = run(body)
    recognise(result, {})
    values = {id(instance.value) for instance in result.instances}
    assert len(values) == 1
    assert result.instances[0].value == b"\xe9" * 50_000


def test_many_sets_on_one_list_share_it() -> None:
    result = run(b"](K\x01K\x02eq\x01cbuiltins\nset\nq\x00" + b"0h\x00h\x01\x85R" * 50 + b".")
    recognise(result, {})
    nodes = [instance.value for instance in result.instances]
    assert all(isinstance(node, SetNode) for node in nodes)
    assert len({id(node.members) for node in nodes}) == 1


# -- arguments that do not fit ---------------------------------------------------------------

F4 = (
    b"cnumpy\ndtype\n("
    + text("f4")
    + b"\x89\x88tR(K\x03"
    + text("<")
    + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)


@pytest.mark.parametrize(
    "data",
    [
        call("_codecs.encode", text("a") + text("zip")),
        call("_codecs.encode", text("a")),
        call("_codecs.encode", text("€") + text("latin1")),
        call("_codecs.encode", b"K\x01" + text("latin1")),
        call("builtins.bytearray", whole(2**40)),
        call("builtins.bytearray", b"]"),
        call("builtins.set", b"K\x01"),
        call("builtins.set", b"]]"),
        call("builtins.complex", b"]"),
        call("builtins.complex", whole(2**2000)),
        call("torch.Size", b"K\x01"),
        call("torch.Size", b""),
        call("torch.Size", b"(" + text("a") + b"t"),
        call("torch.Size", numbers((-1,))),
        call("torch.Size", numbers((2**64,))),
        call("torch.Size", numbers((1,) * 65)),
        call("torch.Size", b"(\x88t"),
        call("torch.device", b"]"),
        call("numpy.core.multiarray.scalar", F4),
        call("numpy.core.multiarray.scalar", F4 + b"C\x03abc"),
        call("numpy.core.multiarray.scalar", F4 + b"K\x01"),
        call("numpy.core.multiarray._reconstruct", b"", b"(K\x01(K\x02t" + F4 + b"\x89C\x03abct"),
        call("numpy.core.multiarray._reconstruct", b"", b"(K\x01]" + F4 + b"\x89K\x07t"),
        call("numpy._core.numeric._frombuffer", b"K\x01"),
        call("numpy.core.multiarray.scalar", b"cnumpy\ndtype\n)RC\x03abc"),
    ],
)
def test_malformed_calls_are_faults_of_the_object(data: bytes) -> None:
    node, faults = read(data)
    assert isinstance(node, Instance)
    assert {fault.scope for fault in faults} == {"object"}
    assert {fault.where for fault in faults} == {"the whole pickle"}


def test_a_constructor_that_is_no_name_is_left_alone() -> None:
    node, faults = read(b"]" * 1000 + b"a" * 999 + b")R.")
    assert isinstance(node, Instance)
    assert faults == ()


def test_names_of_nodes_that_nest_endlessly_are_never_spelled() -> None:
    """Constructors may be calls themselves, thousands deep."""
    deep = b"ca\nB\n" + b")R" * 50_000
    data = b"ctorch\nSize\n(" + deep + b"tR."
    node, faults = read(data)
    assert len(faults) == 1
    assert isinstance(node, Instance)
