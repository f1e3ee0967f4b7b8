"""Where bytes come from: the protocol that every source fulfils."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """Random access to the bytes of one file, local or remote.

    Nothing above the sources knows which kind it holds.  Reads past the end and reads of a file
    that changed underneath raise :class:`ckptools.errors.CorruptFile`, never a signal.
    """

    @property
    def name(self) -> str:
        """The path or address as the user would type it."""

    @property
    def size(self) -> int:
        """Length in bytes when it was opened."""

    @property
    def identity(self) -> tuple[object, ...]:
        """What changes when the content may have changed (size, mtime, inode; an ETag)."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``."""

    def readinto_at(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (writable, contiguous, bytes) from ``offset``."""

    def close(self) -> None:
        """Give the handle back."""
