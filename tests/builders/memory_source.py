"""A source in memory that counts what is read of it."""

from __future__ import annotations

from ckptools.sources.memory import MemorySource


class CountingSource(MemorySource):
    def __init__(self, data: bytes, name: str = "memory") -> None:
        super().__init__(name, data)
        self.bytes_read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.bytes_read += length
        return super().read_at(offset, length)
