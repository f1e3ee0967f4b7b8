"""Checkpoints built by hand: arrays written to one file, with the references that point at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.sources.local import open_source
from ckptools.types.checkpoint import (
    Checkpoint,
    NamedTensor,
    OptimizerState,
    ParameterGroup,
    ParameterState,
    WeightSet,
)
from ckptools.types.container import Container
from ckptools.types.source import Source
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import Pairs

Array = NDArray[Any]


class ArrayFile:
    """A file to which arrays are appended, each giving a reference.

    Parameters
    ----------
    path: of the file; it is written when the first reference is used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = bytearray()
        self._storages: list[tuple[int, int]] = []
        self.source: Source | None = None

    def add(self, values: Array, dtype: str | None = None) -> TensorRef:
        """Append the values; the reference is readable after :meth:`close`."""
        start = len(self._bytes)
        self._bytes += np.ascontiguousarray(values).tobytes()
        nbytes = len(self._bytes) - start
        self._bytes += b"\xee" * (-len(self._bytes) % 64 + 64)
        name = f"data/{len(self._storages)}"
        self._storages.append((start, nbytes))
        storage = Storage(name, _Later(self), start, nbytes, nbytes)
        return TensorRef(
            dtype or str(values.dtype), values.shape, row_major(values.shape), 0, storage
        )

    def close(self) -> ArrayFile:
        """Write the file."""
        self.path.write_bytes(bytes(self._bytes))
        self.source = open_source(str(self.path))
        return self


class _Later:
    """The source of an :class:`ArrayFile`, which exists once that is closed."""

    def __init__(self, file: ArrayFile) -> None:
        self._file = file

    def _source(self) -> Source:
        if self._file.source is None:
            self._file.close()
        assert self._file.source is not None
        return self._file.source

    @property
    def name(self) -> str:
        return self._source().name

    @property
    def size(self) -> int:
        return self._source().size

    @property
    def identity(self) -> tuple[object, ...]:
        return self._source().identity

    def read_at(self, offset: int, length: int) -> bytes:
        return self._source().read_at(offset, length)

    def readinto_at(self, offset: int, buffer: memoryview) -> None:
        self._source().readinto_at(offset, buffer)

    def close(self) -> None:
        self._source().close()


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor, in elements."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= max(size, 1)
    return tuple(strides)


def checkpoint_of(
    path: Path,
    arrays: Mapping[str, Array | TensorRef | tuple[Array, str]],
    *,
    file: ArrayFile | None = None,
    optimizers: Sequence[OptimizerState] = (),
    **named: Any,
) -> Checkpoint:
    """Return a checkpoint whose only weight set holds ``arrays``.

    A value is an array, an array with torch's dtype name (for bfloat16 and its like), or a
    reference.  ``named`` are further fields of every :class:`NamedTensor`.
    """
    file = file or ArrayFile(path)
    tensors = []
    for name, values in arrays.items():
        if isinstance(values, TensorRef):
            ref = values
        elif isinstance(values, tuple):
            ref = file.add(values[0], values[1])
        else:
            ref = file.add(values)
        tensors.append(NamedTensor(name, name, "model", ref, **named))
    if file.source is None:
        file.close()
    container = Container(str(path), "arrays", path.stat().st_size, Pairs(), file.source)
    weights = WeightSet("model", tuple(tensors))
    return Checkpoint(str(path), container, "arrays", (weights,), tuple(optimizers))


def adam_state(
    file: ArrayFile,
    slots: Mapping[str, Array],
    *,
    name: str | None = "w",
    step: float | None = 10.0,
    kind: str = "Adam",
    **settings: Any,
) -> OptimizerState:
    """Return an optimizer with one parameter state of the given slots."""
    refs = {slot: file.add(values) for slot, values in slots.items()}
    state = ParameterState(0, 0, 0, refs, step, name=name, standing="sure" if name else "unknown")
    default = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
    group = ParameterGroup(0, None, default | settings, (0,))
    return OptimizerState("optimizer_state_dict", kind, "model", (group,), (state,), "names")
