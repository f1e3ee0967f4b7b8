import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from ckptools.errors import CorruptFile
from ckptools.formats.json_text import MAX_BYTES
from ckptools.formats.safetensors import Safetensors
from tests.builders.memory_source import CountingSource
from tests.builders.safetensors_files import DATA, W, one
from tests.builders.safetensors_files import safetensors as build

reader = Safetensors()


def read(data):
    source = CountingSource(data)
    assert reader.sniff(source)
    return reader.open("m.safetensors", source)


def tensors(container):
    return dict(container.root.entries)


def kinds(container):
    return [fault.kind for fault in container.faults]


def payload(ref):
    return ref.storage.source.read_at(ref.storage.start, ref.storage.nbytes)


NUMPY = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
NUMPY += ["float16", "float32", "float64", "complex64"]


def test_everything_that_numpy_writes_is_listed_with_its_bytes():
    arrays = {name: np.arange(6).reshape(2, 3).astype(name) for name in NUMPY}
    container = read(safetensors.numpy.save(arrays))
    found = tensors(container)
    assert container.format == "safetensors"
    assert container.faults == ()
    assert container.not_judged == ()
    assert {name: ref.dtype for name, ref in found.items()} == {name: name for name in NUMPY}
    for name, array in arrays.items():
        assert found[name].shape == (2, 3)
        assert found[name].strides == (3, 1)
        assert found[name].readable
        assert payload(found[name]) == array.tobytes()


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        "float8_e4m3fn",
        "float8_e5m2",
        "float8_e4m3fnuz",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
    ],
)
def test_small_floats_of_torch(dtype):
    tensor = torch.tensor([1.0, 2.0, 0.5, 4.0]).to(getattr(torch, dtype))
    ref = tensors(read(save({"w": tensor})))["w"]
    values = np.frombuffer(payload(ref), dtype=getattr(ml_dtypes, dtype))
    assert ref.dtype == dtype
    assert values.astype(np.float32).tolist() == [1.0, 2.0, 0.5, 4.0]


def test_scalars_and_empty_tensors():
    found = tensors(read(save({"s": torch.tensor(2.0), "e": torch.zeros(0, 3)})))
    assert found["s"].shape == ()
    assert found["s"].readable
    assert found["e"].shape == (0, 3)
    assert found["e"].readable


def test_four_bit_floats_are_listed_as_torch_packs_them_and_not_offered():
    packed = torch.zeros(2, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    ref = tensors(read(save({"w": packed})))["w"]
    assert (ref.dtype, ref.shape) == ("float4_e2m1fn_x2", (2, 4))
    assert not ref.readable


@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"),
    [("F6_E2M3", [8], 6), ("F6_E3M2", [4, 2], 6), ("F4", [3, 2, 1], 3)],
)
def test_other_sub_byte_dtypes_are_listed_as_bytes(dtype, shape, nbytes):
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, nbytes]}
    container = read(build({"w": entry}, bytes(nbytes)))
    ref = tensors(container)["w"]
    assert container.faults == ()
    assert ref.shape == (nbytes,)
    assert str(shape) in (ref.unreadable or "")


def test_metadata_is_kept():
    data = safetensors.numpy.save({"w": np.zeros(1)}, metadata={"format": "pt"})
    assert read(data).metadata["metadata"] == {"format": "pt"}


def test_nothing_of_the_payload_is_read():
    source = CountingSource(safetensors.numpy.save({"w": np.zeros(1 << 16)}))
    reader.open("m", source)
    assert source.bytes_read < 1000


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (build(b'{"w":%b,"w":%b}' % ((json.dumps(W).encode(),) * 2)), "duplicate-key"),
        (build({"a": W, "b": {**W, "data_offsets": [8, 24]}}, bytes(24)), "overlapping-data"),
        (build({"a": W, "b": W}), "overlapping-data"),
        (build({"a": W, "b": {**W, "data_offsets": [20, 36]}}, bytes(36)), "hole"),
        (build({"a": {**W, "data_offsets": [4, 20]}}, bytes(20)), "hole"),
        (build({"w": W}, DATA + b"more"), "trailing-bytes"),
        (one(data_offsets=[16, 0]), "tensor-out-of-bounds"),
        (one(shape=[5]), "tensor-out-of-bounds"),
        (one(shape=[1 << 40, 1 << 40], data_offsets=[0, 16]), "tensor-out-of-bounds"),
        (one(shape=[0, 1 << 62], data_offsets=[0, 0]), "tensor-out-of-bounds"),
        (one(data_offsets=[-16, 0]), "malformed-entry"),
        (one(data_offsets=[0, 16, 16]), "malformed-entry"),
        (one(data_offsets=[0, True]), "malformed-entry"),
        (one(shape=[4.0]), "malformed-entry"),
        (one(shape="4"), "malformed-entry"),
        (one(shape=[1] * 65), "malformed-entry"),
        (one(dtype=7), "malformed-entry"),
        (build({"w": [1]}), "malformed-entry"),
        (one(dtype="F128"), "unknown-dtype"),
        (build({"__metadata__": {"a": {"b": 1}}, "w": W}), "metadata-not-text"),
        (build({"__metadata__": [], "w": W}), "metadata-not-text"),
    ],
)
def test_contradictions_are_faults(data, kind):
    container = read(data)
    assert kind in kinds(container)
    fault = next(fault for fault in container.faults if fault.kind == kind)
    assert fault.scope == ("object" if kind == "unknown-dtype" else "container")


def test_a_tensor_that_makes_no_sense_is_left_out_and_named():
    container = read(build({"bad": {**W, "shape": [5]}, "w": W}))
    assert list(tensors(container)) == ["w"]
    assert any(reason.startswith("bad:") for reason in container.not_judged)


@pytest.mark.parametrize(
    "data",
    [
        build({"w": W})[:40],
        build(b"[" + b" " * 30 + b"]"),
        build(b'{"w": NaN}'),
        build(b'{"w": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        build(b'{"w": "\xff"}'),
        build(b'{"w": 1' + b"0" * 5000 + b"}"),
        build(b'{"w": 1'),
    ],
)
def test_a_header_that_cannot_be_read_is_refused(data):
    with pytest.raises(CorruptFile):
        read(data)


def test_a_header_that_would_fill_the_memory_is_refused():
    with pytest.raises(CorruptFile, match="limit"):
        read((MAX_BYTES + 1).to_bytes(8, "little") + b'{"' + bytes(MAX_BYTES))
    with pytest.raises(CorruptFile, match="too many"):
        read(build(b"{" + b'"":[],' * 2_000_001 + b'"":{}}'))


def test_what_lies_before_a_cut_is_salvaged():
    data = save({name: torch.ones(4) for name in "abc"})
    container = read(data[:-20])
    found = tensors(container)
    assert found["a"].readable
    assert not found["b"].readable
    assert not found["c"].readable
    assert kinds(container) == ["truncated", "truncated"]
    assert [reason[0] for reason in container.not_judged] == ["b", "c"]


@pytest.mark.parametrize("data", [b"", b"\0" * 40, b"PK\x03\x04" + bytes(60), b"{}", b"\x80\x02]."])
def test_other_files_are_not_taken(data):
    assert not reader.sniff(CountingSource(data))


def test_many_faults_are_counted_and_not_kept():
    data = build({f"w{i}": {**W, "shape": [5]} for i in range(1000)})
    container = read(data)
    bad = [fault for fault in container.faults if fault.kind == "tensor-out-of-bounds"]
    assert len(bad) == 101
    assert bad[-1].evidence == {"count": 1000}


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.text(max_size=5).filter(lambda name: name != "__metadata__"),
        st.lists(st.integers(0, 3), max_size=3),
        max_size=5,
    )
)
def test_whatever_the_library_writes_is_clean_and_covers_every_byte(shapes):
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    container = read(safetensors.numpy.save(arrays))
    assert container.faults == ()
    assert {name: ref.shape for name, ref in tensors(container).items()} == {
        name: array.shape for name, array in arrays.items()
    }
