"""Record surgery: new payloads of the old length in a zip whose every other byte stays.

Nothing moves, so alignment, offsets, the pickle and all other records stay as they are; a
replaced record changes its payload and the two or three fields that hold its CRC-32.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckptools.errors import OperationError
from ckptools.surgery.segments import Fresh
from ckptools.types.container import Container, Record
from ckptools.types.source import Source

_LOCAL = struct.Struct("<4s5H3I2H")
_CRC_IN_HEADER, _CRC_IN_DIRECTORY, _CRC_IN_DESCRIPTOR = 14, 16, 4
_DESCRIPTOR_FLAG = 0x8


@dataclass(slots=True)
class _Checked:
    """A payload that notes its CRC while it is written, for the fields that follow it."""

    payload: Fresh
    crc: int | None = None

    def chunks(self) -> Iterator[bytes | memoryview]:
        crc = 0
        for chunk in self.payload.chunks():
            crc = zlib.crc32(chunk, crc)
            yield chunk
        self.crc = crc

    def field(self) -> Iterable[bytes]:
        """Return the CRC as four bytes; before the payload was written it is computed for it."""
        if self.crc is None:
            for _ in self.chunks():
                pass
        assert self.crc is not None
        return [struct.pack("<I", self.crc)]


def replacements(container: Container, payloads: Mapping[str, Fresh]) -> list[tuple[int, Fresh]]:
    """Return the byte ranges that change when some records get new payloads.

    Parameters
    ----------
    container: an opened zip without container faults.
    payloads: new bytes by record name, each as long as the old ones.

    Raises
    ------
    OperationError: no such record, another length, or a compressed record.
    """
    records = {record.name: record for record in container.records}
    changed: list[tuple[int, Fresh]] = []
    for name, payload in payloads.items():
        if name not in records:
            raise OperationError(f"has no record {name!r}", where=container.path)
        changed += _record(container, records[name], payload)
    return changed


def _record(container: Container, record: Record, payload: Fresh) -> list[tuple[int, Fresh]]:
    storage = record.storage
    if storage.deflated is not None or payload.length != storage.nbytes:
        raise OperationError(
            f"record {record.name!r} is compressed or would change its length",
            where=container.path,
            next="rewrite the file first: ckptools convert --to torch-zip",
        )
    if payload.length == 0:
        return []
    if storage.crc32 is None:  # written without checksums: they stay left out
        return [(storage.start, payload)]
    checked = _Checked(payload)
    crc = Fresh(4, checked.field)
    places = [place for place in _crc_places(storage.source, record) if place is not None]
    return [(storage.start, Fresh(payload.length, checked.chunks)), *((p, crc) for p in places)]


def _crc_places(source: Source, record: Record) -> Iterator[int | None]:
    """Yield the offsets of the fields that state the record's CRC-32."""
    flags = _LOCAL.unpack(source.read_at(record.header_start, _LOCAL.size))[2]
    end = record.storage.start + record.storage.nbytes
    if not flags & _DESCRIPTOR_FLAG:
        yield record.header_start + _CRC_IN_HEADER
    elif source.read_at(end, 4) == b"PK\x07\x08":
        yield end + _CRC_IN_DESCRIPTOR
    else:  # the signature is optional
        yield end
    if record.directory_start is not None:
        yield record.directory_start + _CRC_IN_DIRECTORY
