from __future__ import annotations

import sys
import tracemalloc
import zlib
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.errors import CorruptFile, MeasureError
from ckptools.sources import open_source
from ckptools.sources.arrays import NUMPY_TYPES, iter_chunks, read_array
from ckptools.sources.memory import MemorySource
from ckptools.types.source import Source
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef


def stored(data: bytes, **options: Any) -> Storage:
    """Return a storage that lies at an odd place of its source."""
    content = b"\xee" * 13 + data + b"\xee" * 5
    options.setdefault("available", len(data))
    return Storage("data/0", MemorySource("memory", content), 13, len(data), **options)


def deflated(data: bytes) -> Storage:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(data) + packer.flush()
    source = MemorySource("memory", b"\xee" * 3 + packed)
    return Storage("data/0", source, 3, len(data), len(data), deflated=len(packed))


def joined(ref: TensorRef, elements: int) -> np.ndarray[Any, Any]:
    chunks = list(iter_chunks(ref, elements))
    assert all(chunk.ndim == 1 and 0 < chunk.size <= elements for chunk in chunks)
    return np.concatenate(chunks) if chunks else np.empty(0)


views = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 2, 3, 5, 7, 40])), max_size=4)


@settings(deadline=None, max_examples=200)
@given(axes=views, offset=st.integers(0, 20), elements=st.integers(1, 40), packed=st.booleans())
def test_any_view_reads_as_numpy_strides_it(
    axes: list[tuple[int, int]], offset: int, elements: int, packed: bool
) -> None:
    shape = tuple(n for n, _ in axes)
    strides = tuple(s for _, s in axes)
    base = np.arange(1000, dtype=np.int16)
    expected = np.lib.stride_tricks.as_strided(base[offset:], shape, [2 * s for s in strides])
    storage = deflated(base.tobytes()) if packed else stored(base.tobytes())
    ref = TensorRef("int16", shape, strides, offset, storage)
    assert read_array(ref).tolist() == expected.tolist()
    assert joined(ref, elements).tolist() == expected.reshape(-1).tolist()


@pytest.mark.parametrize("dtype", sorted(NUMPY_TYPES))
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_every_dtype_in_both_byte_orders(dtype: str, byteorder: str) -> None:
    kind = NUMPY_TYPES[dtype]
    expected = np.array([1, 2, 4, 1, 0.5, 2] if dtype != "bool" else [1, 0, 1]).astype(kind)
    raw = expected if byteorder == sys.byteorder else expected.byteswap()
    ref = TensorRef(dtype, expected.shape, (1,), 0, stored(raw.tobytes(), byteorder=byteorder))
    assert read_array(ref).dtype == kind
    assert read_array(ref).tolist() == expected.tolist()
    assert joined(ref, 2).tolist() == expected.tolist()


def test_numpy_types_have_torch_sizes() -> None:
    assert {name: kind.itemsize for name, kind in NUMPY_TYPES.items()} == {
        name: ITEMSIZE[name] for name in NUMPY_TYPES
    }


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_half_complex_numbers_become_complex64(byteorder: str) -> None:
    halves = np.array([1, -2, 0.5, 3], dtype=np.float16)
    raw = halves if byteorder == sys.byteorder else halves.byteswap()
    ref = TensorRef("complex32", (2,), (1,), 0, stored(raw.tobytes(), byteorder=byteorder))
    assert read_array(ref).dtype == np.complex64
    assert read_array(ref).tolist() == [1 - 2j, 0.5 + 3j]


def test_half_complex_infinities_stay_apart() -> None:
    halves = np.array([1, np.inf, np.inf, 0], dtype=np.float16)
    ref = TensorRef("complex32", (2,), (1,), 0, stored(halves.tobytes()))
    first, second = read_array(ref)
    assert (first.real, first.imag) == (1, np.inf)
    assert (second.real, second.imag) == (np.inf, 0)


def test_booleans_of_odd_bytes_are_true() -> None:
    ref = TensorRef("bool", (4,), (1,), 0, stored(bytes([0, 1, 2, 255])))
    assert read_array(ref).tolist() == [False, True, True, True]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_empty_tensors(shape: tuple[int, ...]) -> None:
    ref = TensorRef("float32", shape, (1,) * len(shape), 0, stored(np.float32(7).tobytes()))
    assert read_array(ref).shape == shape
    assert joined(ref, 5).size == prod(shape)


# -- what cannot be read ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "ref",
    [
        TensorRef("float32", (1,), (1,), 0, None, "meta"),
        TensorRef("float32", (1,), (1,), 0, None),
        TensorRef("bits8", (1,), (1,), 0, stored(b"1")),
        TensorRef("nobody_knows", (1,), (1,), 0, stored(b"1")),
        TensorRef("float32", (1,), (1,), 0, stored(bytes(4)), "sparse"),
    ],
)
def test_tensors_without_values(ref: TensorRef) -> None:
    with pytest.raises(MeasureError, match="not offered"):
        read_array(ref)
    with pytest.raises(MeasureError, match="not offered"):
        list(iter_chunks(ref))


def test_a_partial_storage_gives_its_first_part() -> None:
    storage = stored(np.arange(10, dtype=np.int32).tobytes(), available=26)
    ref = TensorRef("int32", (8,), (1,), 1, storage)
    got: list[int] = []
    with pytest.raises(CorruptFile, match="26 of 40"):
        for chunk in iter_chunks(ref, 3):
            got.extend(chunk.tolist())
    assert got == [1, 2, 3, 4, 5]
    with pytest.raises(CorruptFile):
        read_array(ref)


def test_a_view_inside_the_part_that_is_there_is_whole() -> None:
    storage = stored(np.arange(10, dtype=np.int32).tobytes(), available=26)
    assert read_array(TensorRef("int32", (3,), (2,), 1, storage)).tolist() == [1, 3, 5]


def test_a_strided_view_past_the_cut() -> None:
    storage = stored(np.arange(10, dtype=np.int32).tobytes(), available=26)
    with pytest.raises(CorruptFile):
        list(iter_chunks(TensorRef("int32", (4,), (3,), 0, storage)))


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_broken_compressed_data(damage: str) -> None:
    good = deflated(np.random.default_rng(0).integers(0, 40, 5000, np.uint8).tobytes())
    raw = good.source.read_at(0, good.source.size)
    raw = raw[:2000] if damage == "cut" else raw[:100] + b"\xff" * 500 + raw[600:]
    length = len(raw) - 3
    storage = Storage("x", MemorySource("m", raw), 3, 5000, 5000, deflated=length)
    with pytest.raises(CorruptFile, match="broken"):
        list(iter_chunks(TensorRef("uint8", (5000,), (1,), 0, storage), 512))


# -- bounds ----------------------------------------------------------------------------------


def _peak(ref: TensorRef, elements: int) -> int:
    tracemalloc.start()
    total = sum(chunk.size for chunk in iter_chunks(ref, elements))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == ref.numel
    return peak


@pytest.fixture
def large(tmp_path: Path) -> Source:
    path = tmp_path / "large.bin"
    np.arange(24 << 20, dtype=np.int32).tofile(path)
    return open_source(path)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((24 << 20,), (1,)),
        ((4096, 6144), (1, 4096)),  # a transposed matrix, larger than what is read at once
        ((6144, 1024), (4096, 1)),  # the left quarter of every row
        ((12 << 20,), (2,)),
    ],
    ids=["whole", "transposed", "columns", "every-second"],
)
def test_memory_is_bounded_by_the_chunk(
    large: Source, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    storage = Storage("x", large, 0, large.size, large.size)
    ref = TensorRef("int32", shape, strides, 0, storage)
    assert _peak(ref, 1 << 18) < 60 << 20


def test_a_large_transposed_matrix_in_order(large: Source) -> None:
    storage = Storage("x", large, 0, large.size, large.size)
    ref = TensorRef("int32", (4096, 6144), (1, 4096), 0, storage)
    seen = 0
    for chunk in iter_chunks(ref, 1 << 20):
        flat = np.arange(seen, seen + chunk.size)
        assert np.array_equal(chunk, flat // 6144 + flat % 6144 * 4096)
        seen += chunk.size
    assert seen == ref.numel


def test_native_types_are_ml_dtypes() -> None:
    ref = TensorRef("bfloat16", (1,), (1,), 0, stored(b"\x80\x3f"))
    assert read_array(ref).dtype == ml_dtypes.bfloat16
    assert float(read_array(ref)[0]) == 1.0
