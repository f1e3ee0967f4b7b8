"""References to tensors: sizes, contiguity, and whether the last byte is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.sources import open_source
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef

shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def strides_of(array: np.ndarray) -> tuple[int, ...]:
    return tuple(stride // array.itemsize for stride in array.strides)


@given(shapes, st.randoms())
def test_contiguity_is_numpys(shape: tuple[int, ...], random: object) -> None:
    array = np.zeros(shape, np.float32)
    order = list(range(len(shape)))
    random.shuffle(order)  # type: ignore[attr-defined]
    moved = array.transpose(order)
    ref = TensorRef("float32", moved.shape, strides_of(moved))
    assert ref.contiguous == moved.flags.c_contiguous
    assert ref.numel == moved.size
    assert ref.nbytes == moved.nbytes


@pytest.mark.parametrize("available", range(13))
def test_readable_when_the_last_element_is_there(tmp_path: Path, available: int) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(12))
    storage = Storage("data/0", open_source(str(path)), 0, 12, available)
    last_two = TensorRef("int16", (2,), (2,), offset=1, storage=storage)  # elements 1 and 3
    assert last_two.readable == (available >= 8)
    empty = TensorRef("int16", (0,), (1,), offset=6, storage=storage)
    assert empty.readable
    assert storage.whole == (available == 12)


def test_without_a_storage_or_with_a_reason_nothing_is_readable() -> None:
    assert not TensorRef("float32", (1,), (1,)).readable
    assert not TensorRef("float32", (1,), (1,), unreadable="sparse").readable


def test_every_dtype_of_torch_has_its_size() -> None:
    torch = pytest.importorskip("torch")
    for name, kind in vars(torch).items():
        if isinstance(kind, torch.dtype) and name in ITEMSIZE:
            assert ITEMSIZE[name] == kind.itemsize, name
