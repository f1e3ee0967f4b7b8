"""Files of this machine, read by position.

Reading by ``pread`` and not through mapped memory has a reason: a mapped file that another process
truncates kills the reader with a signal, a short ``pread`` is an error that can be told.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from collections.abc import Sequence

from ckptools.errors import CorruptFile, OpenError

#: What the kernel reads at most in one call.
_LARGEST_READ = 1 << 30
#: From this length on a read counts as streaming, and the kernel may read ahead.
_STREAMING = 256 << 10


class LocalSource:
    """One regular file, open for reading; see :class:`ckptools.types.source.Source`."""

    def __init__(self, path: str, descriptor: int, status: os.stat_result) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = status.st_size
        self._identity = _identity(status)
        self._streaming = False
        self._starts: list[int] = []
        self._kept: list[memoryview] = []
        self._advise("POSIX_FADV_RANDOM")

    @property
    def name(self) -> str:
        """The path as the user typed it."""
        return self._path

    @property
    def size(self) -> int:
        """Length in bytes when it was opened."""
        return self._size

    @property
    def identity(self) -> tuple[object, ...]:
        """Size, modification time, inode and device when it was opened."""
        return self._identity

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``.

        Raises
        ------
        CorruptFile: the range lies outside of the file, or the file shrank meanwhile.
        """
        self._check_range(offset, length)
        known = self._in_memory(offset, length)
        if known is not None:
            return bytes(known)
        if length < _STREAMING:
            piece = self._pread(offset, length)
            if len(piece) == length:
                return piece
        buffer = bytearray(length)
        self.readinto_at(offset, memoryview(buffer))
        return bytes(buffer)

    def readinto_at(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``; raises as :meth:`read_at` does."""
        view = buffer.cast("B")
        self._check_range(offset, len(view))
        known = self._in_memory(offset, len(view))
        if known is not None:
            view[:] = known
            return
        if len(view) >= _STREAMING:
            self._stream()
        done = 0
        while done < len(view):
            count = self._preadv(offset + done, view[done : done + _LARGEST_READ])
            if count == 0:
                raise self._shrunk(offset + done)
            done += count

    def keep(self, runs: Sequence[tuple[int, int]]) -> None:
        """Read runs of bytes into memory, which serves reads inside of one until :meth:`drop`.

        Parameters
        ----------
        runs: (offset, length) of each; they do not overlap.

        Raises
        ------
        CorruptFile, OpenError: as :meth:`read_at`; nothing is kept then.
        """
        self.drop()
        kept = []
        for offset, length in sorted(runs):
            kept.append(memoryview(bytearray(length)))
            self.readinto_at(offset, kept[-1])
        self._starts, self._kept = [offset for offset, _ in sorted(runs)], kept

    def drop(self) -> None:
        """Give the memory back that :meth:`keep` took; all reads go to the file again."""
        self._starts, self._kept = [], []

    def _in_memory(self, offset: int, length: int) -> memoryview | None:
        """Return these bytes where they are kept, else None."""
        place = bisect_right(self._starts, offset) - 1
        if place < 0:
            return None
        first = offset - self._starts[place]
        run = self._kept[place]
        return run[first : first + length] if first + length <= len(run) else None

    def close(self) -> None:
        """Give the descriptor back; closing twice does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def changed(self) -> bool:
        """Return whether the open file was written to, truncated or grown since it was opened."""
        return _identity(os.fstat(self._descriptor)) != self._identity

    def __enter__(self) -> LocalSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LocalSource({self._path!r})"

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._size:
            raise CorruptFile(
                f"bytes {offset:,} to {offset + length:,} lie outside of the file "
                f"({self._size:,} bytes)",
                where=self._path,
            )

    def _pread(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise self._unreadable(error) from None

    def _preadv(self, offset: int, view: memoryview) -> int:
        try:
            return os.preadv(self._descriptor, [view], offset)
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> OpenError:
        return OpenError(f"cannot be read: {error.strerror}", where=self._path)

    def _shrunk(self, offset: int) -> CorruptFile:
        return CorruptFile(
            f"the file ends at byte {offset:,} but had {self._size:,} bytes when it was opened",
            where=self._path,
            next="something writes to it right now: wait until it is finished and try again",
        )

    def _stream(self) -> None:
        if not self._streaming:
            self._streaming = True
            self._advise("POSIX_FADV_SEQUENTIAL")

    def _advise(self, advice: str) -> None:
        """Tell the kernel how to read ahead, where it listens.

        Reading ahead at every header of an archive would fetch the whole file.
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, getattr(os, advice))


def open_source(path: str | os.PathLike[str]) -> LocalSource:
    """Open a regular file for reading by position.

    Raises
    ------
    OpenError: it does not exist, may not be read, or is no regular file (a folder, a pipe, a
        device, a link that leads nowhere).
    """
    name = os.fspath(path)
    try:
        _check_regular(os.stat(name), name)
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise OpenError(f"cannot be opened: {error.strerror}", where=name) from None
    except ValueError:
        raise OpenError("no file can have such a name", where=ascii(name)) from None
    status = os.fstat(descriptor)
    try:
        _check_regular(status, name)
    except OpenError:
        os.close(descriptor)
        raise
    return LocalSource(name, descriptor, status)


def _check_regular(status: os.stat_result, name: str) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
    raise OpenError(f"is {kind}, not a checkpoint file", where=name)


def _identity(status: os.stat_result) -> tuple[object, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev
