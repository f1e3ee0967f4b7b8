"""What is broken in a file's bytes or values, and which tensors it concerns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ckptools import formats
from ckptools.sources.arrays import iter_chunks
from ckptools.types.container import Container, Fault, Record
from ckptools.types.tensor import FLOATING, Storage, TensorRef

#: faults of a container that a repair is for
MENDED = ("crc-mismatch", "truncated", "directory-damaged")


#: the file and the offset of a storage
Place = tuple[str, int]


def place(storage: Storage | None) -> Place:
    """Return where a storage lies, whatever an index calls it."""
    return (storage.source.name, storage.start) if storage is not None else ("", 0)


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit that does not fit a record's checksum: ``bit`` of ``byte`` of the record."""

    record: Record
    byte: int
    bit: int

    @property
    def place(self) -> TensorRef:
        """The byte as a tensor of one element, so that it can be edited like one."""
        return TensorRef("uint8", (1,), (1,), self.byte, self.record.storage)

    @property
    def mended(self) -> int:
        """The byte as it was."""
        storage = self.record.storage
        (value,) = storage.source.read_at(storage.start + self.byte, 1)
        return int(value) ^ (1 << self.bit)


def checksums(container: Container) -> tuple[list[Flip], list[tuple[Record, Fault]]]:
    """Return the located flips, and the records whose damage is more than one flip."""
    flips: list[Flip] = []
    beyond: list[tuple[Record, Fault]] = []
    for part in container.parts.values():
        of_part = checksums(part)
        flips += of_part[0]
        beyond += of_part[1]
    records = {record.name: record for record in container.records}
    for fault in formats.verify_checksums(replace(container, parts={})) if records else ():
        record = records.get(str(fault.evidence.get("record")))
        if record is None:
            continue
        if "byte" in fault.evidence:
            flips.append(Flip(record, int(fault.evidence["byte"]), int(fault.evidence["bit"])))
        else:
            beyond.append((record, fault))
    return flips, beyond


def cut_off(container: Container) -> bool:
    """Return whether the file's end is missing or its directory is damaged."""
    kinds = {fault.kind for fault in container.faults if fault.scope == "container"}
    return bool(kinds & {"truncated", "directory-damaged"})


def lacking(storage: Storage | None) -> bool:
    """Return whether a storage's end is not in the file."""
    return storage is not None and not storage.whole


def not_numbers(ref: TensorRef, *, negative: bool = False) -> int:
    """Return how many values are NaN or infinite (with ``negative`` also those below zero)."""
    if ref.dtype not in FLOATING or not ref.readable:
        return 0
    return sum(int(np.count_nonzero(bad(chunk, negative))) for chunk in iter_chunks(ref))


def bad(values: np.ndarray[Any, Any], negative: bool) -> np.ndarray[Any, Any]:
    """Return where values are not finite (or negative, where that is damage, too)."""
    plain = values if values.dtype.kind == "f" else values.astype(np.float32)
    wrong: np.ndarray[Any, Any] = ~np.isfinite(plain)
    return wrong | (plain < 0) if negative else wrong
