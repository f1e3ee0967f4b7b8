"""New values over old bytes: what numpy's own assignment gives, a window at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.errors import OperationError
from ckptools.sources.memory import MemorySource
from ckptools.surgery import values
from ckptools.surgery.overlay import overlay
from ckptools.types.tensor import Storage, TensorRef


def storage(data: bytes, available: int | None = None) -> Storage:
    there = len(data) if available is None else available
    return Storage("data/0", MemorySource("a record", data[:there]), 0, len(data), there)


def content(where: Storage, edits: dict[TensorRef, values.Make]) -> bytes:
    fresh = overlay(where, edits)
    data = b"".join(bytes(chunk) for chunk in fresh.chunks())
    assert len(data) == fresh.length
    return data


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, list[TensorRef]]:
    """Views side by side: plain, transposed, every second element, or two interlaced ones."""
    refs: list[TensorRef] = []
    at = draw(st.integers(0, 3))
    for kind in draw(st.lists(st.sampled_from(["plain", "turned", "sparse", "laced"]), max_size=5)):
        rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        size = rows * columns
        if kind == "plain":
            refs.append(TensorRef("float32", (rows, columns), (columns, 1), at))
        elif kind == "turned":
            refs.append(TensorRef("float32", (rows, columns), (1, rows), at))
        else:
            refs.append(TensorRef("float32", (size,), (2,), at))
            refs += [TensorRef("float32", (size,), (2,), at + 1)] * (kind == "laced")
            size *= 2
        at += size + draw(st.integers(0, 2))
    return at, refs


@given(layouts())
def test_as_numpy_assigns(layout: tuple[int, list[TensorRef]]) -> None:
    count, refs = layout
    data = np.arange(count, dtype=np.float32)
    where, expected = storage(data.tobytes()), data.copy()
    edits = {}
    for number, ref in enumerate(refs):
        new = -np.arange(1.0, ref.numel + 1) * (number + 1)
        strides = tuple(4 * one for one in ref.strides)
        view = np.lib.stride_tricks.as_strided(expected[ref.offset :], ref.shape, strides)
        view[...] = new.reshape(ref.shape)
        placed = TensorRef(ref.dtype, ref.shape, ref.strides, ref.offset, where)
        edits[placed] = values.given(new)
    assert content(where, edits) == expected.tobytes()


def test_a_strided_tensor_in_a_large_storage_takes_its_own_place_in_memory() -> None:
    where = storage(bytes(64 << 20))
    turned = TensorRef("float32", (256, 256), (1, 256), 1 << 20, where)
    plain = TensorRef("float32", (1 << 21,), (1,), 2 << 20, where)
    edits = {turned: values.constant(turned, 1.0), plain: values.constant(plain, 2.0)}
    tracemalloc.start()
    try:
        length = sum(len(chunk) for chunk in overlay(where, edits).chunks())
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert length == where.nbytes


def test_what_cannot_be_laid_over_is_refused() -> None:
    where = storage(bytes(64))
    whole = TensorRef("float32", (16,), (1,), 0, where)
    part = TensorRef("float32", (2,), (1,), 3, where)
    turned = TensorRef("float32", (2, 8), (1, 2), 0, where)
    shown = TensorRef("float32", (4, 2), (0, 1), 0, where)
    with pytest.raises(OperationError, match="two edits"):
        overlay(where, {whole: values.constant(whole, 1.0), part: values.constant(part, 1.0)})
    with pytest.raises(OperationError, match="two edits"):
        content(where, {turned: values.constant(turned, 1.0), part: values.constant(part, 1.0)})
    with pytest.raises(OperationError, match="several times"):
        overlay(where, {shown: values.constant(shown, 1.0)})
    cut = storage(bytes(64), available=32)
    for ref in (turned, TensorRef("float32", (2,), (2,), 0, cut)):
        with pytest.raises(OperationError, match="cut off"):
            overlay(cut, {ref: values.constant(ref, 1.0)})
    over = TensorRef("float32", (16,), (1,), 0, cut)
    assert content(cut, {over: values.constant(over, 1.0)}) == np.ones(16, np.float32).tobytes()
