"""Bytes that were taken out of another file, e.g. an array that lies inside a pickle."""

from __future__ import annotations

from ckptools.errors import CorruptFile


class MemorySource:
    """A few bytes with a name; see :class:`ckptools.types.source.Source`."""

    def __init__(self, name: str, data: bytes) -> None:
        self._name = name
        self._data = data

    @property
    def name(self) -> str:
        """Where the bytes came from."""
        return self._name

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self._data)

    @property
    def identity(self) -> tuple[object, ...]:
        """The bytes never change."""
        return (self._name, id(self._data), len(self._data))

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``; CorruptFile outside of the data."""
        if offset < 0 or length < 0 or offset + length > len(self._data):
            raise CorruptFile("a read outside of the data", where=self._name)
        return self._data[offset : offset + length]

    def readinto_at(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``; CorruptFile outside of the data."""
        view = buffer.cast("B")
        view[:] = self.read_at(offset, len(view))

    def close(self) -> None:
        """Do nothing: the bytes go with their last user."""
