"""States in eight bits by blocks, as bitsandbytes keeps them, under the names of other optimizers.

A slot is three tensors: a code for each element, a table of 256 values in [-1, 1], and for each
block of consecutive elements its largest magnitude::

    value[i] = table[code[i]] · largest[i // block]

Short parameters keep their state in single precision under the same names, without a table.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ckptools.sources.arrays import read_array
from ckptools.types.tensor import FLOATING, Storage, TensorRef

#: How long blocks may be.
_BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096)
#: What an optimizer of one slot calls it elsewhere, by the kind without its bits.
_ONLY = {"SGD": "momentum_buffer", "RMSprop": "square_avg", "Adagrad": "sum"}


def is_blockwise(slots: Mapping[str, TensorRef]) -> bool:
    """Return whether a state is kept under bitsandbytes' names."""
    return "state1" in slots


def usual(kind: str, slots: Mapping[str, TensorRef]) -> Mapping[str, TensorRef]:
    """Return the slots under the names that they have elsewhere, decoded when they are read.

    A slot whose parts are missing or do not fit is left out; other optimizers' slots are returned
    as they are.  The values are an approximation: no bound of an exact history holds for them.

    Parameters
    ----------
    kind: of the optimizer; tells what a single slot is.
    """
    if not is_blockwise(slots):
        return slots
    only = _ONLY.get(kind.removesuffix("8bit").removesuffix("32bit"), "exp_avg")
    names = {"exp_avg": "1", "exp_avg_sq": "2"} if "state2" in slots else {only: "1"}
    found = {name: _slot(slots, number) for name, number in names.items()}
    return {name: ref for name, ref in found.items() if ref is not None}


def is_decoded(ref: TensorRef) -> bool:
    """Return whether a tensor's values are decoded when they are read."""
    return ref.storage is not None and isinstance(ref.storage.source, _Decoder)


def block_length(numel: int, count: int) -> int | None:
    """Return how long the blocks are, of which ``count`` hold ``numel`` elements."""
    return next((length for length in _BLOCKS[::-1] if -(-numel // length) == count), None)


def _slot(slots: Mapping[str, TensorRef], number: str) -> TensorRef | None:
    """Return one slot in single precision, or None where it cannot be decoded."""
    codes, table, largest = (slots.get(f"{part}{number}") for part in ("state", "qmap", "absmax"))
    if codes is None or (codes.dtype in FLOATING and table is None and largest is None):
        return codes
    if table is None or largest is None or codes.dtype != "uint8" or table.numel < 256:
        return None
    block = block_length(codes.numel, largest.numel)
    within = codes.storage is not None and codes.storage.deflated is None and codes.contiguous
    readable = all(one.readable for one in (codes, table, largest))
    if block is None or not within or not readable:
        return None
    source = _Decoder(codes, table, largest, block)
    name = f"{source.codes.name} decoded"
    storage = Storage(name, source, 0, source.size, source.size, sys.byteorder)
    return TensorRef("float32", codes.shape, codes.strides, 0, storage)


@dataclass(frozen=True)
class _Decoder:
    """A source of the values that codes stand for, in single precision."""

    ref: TensorRef
    table: TensorRef
    largest: TensorRef
    block: int

    @property
    def codes(self) -> Storage:
        """Where the codes lie."""
        assert self.ref.storage is not None
        return self.ref.storage

    @property
    def name(self) -> str:
        """The path of the file."""
        return self.codes.source.name

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return 4 * self.ref.numel

    @property
    def identity(self) -> tuple[object, ...]:
        """The file's, and where the codes lie in it."""
        return (*self.codes.source.identity, "decoded", self.codes.start, self.ref.offset)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, both whole values."""
        return self._values(offset // 4, length // 4).tobytes()

    def readinto_at(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``, both whole values."""
        buffer[:] = self._values(offset // 4, len(buffer) // 4).view(np.uint8).data

    def close(self) -> None:
        """Do nothing: the file belongs to others."""

    @cached_property
    def _scale(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        table, largest = (read_array(one).reshape(-1) for one in (self.table, self.largest))
        return table.astype(np.float32, copy=False), largest.astype(np.float32, copy=False)

    def _values(self, start: int, count: int) -> NDArray[np.float32]:
        at = self.ref.offset + start
        codes = read_array(replace(self.ref, shape=(count,), strides=(1,), offset=at))
        table, largest = self._scale
        blocks = np.arange(start, start + count) // self.block
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(table[codes] * largest[blocks])
