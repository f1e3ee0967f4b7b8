"""Where the parts of a log lie: in memory while it is small, else in a temporary file."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, BinaryIO, overload

import numpy as np

from ckptools.types.records import Part

#: bytes of parts that are kept in memory; what comes after them goes to a file
IN_MEMORY = 1 << 26

_FIELDS = tuple(one.name for one in fields(Part))
_Place = tuple[int, tuple[tuple[np.dtype[np.generic], int], ...]]


class Parts(Sequence[Part]):
    """Parts in the order in which they were added.

    The file has no name and goes with the last reference; it lies where Python puts temporary
    files (``TMPDIR``), so the memory stays bounded as long as that is a disk.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = IN_MEMORY if limit is None else limit
        self._kept: list[Part] = []
        self._written: list[_Place] = []
        self._bytes = 0
        self._file: BinaryIO | None = None

    def append(self, part: Part) -> None:
        """Add a part; WriteError of the system (OSError) when the temporary file finds no room."""
        arrays = [getattr(part, name) for name in _FIELDS]
        self._bytes += sum(one.nbytes for one in arrays)
        if self._file is None and self._bytes <= self.limit:
            self._kept.append(part)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  lives as long as this
            weakref.finalize(self, self._file.close)
        offset = self._file.tell()
        for one in arrays:
            self._file.write(np.ascontiguousarray(one).data.cast("B") if len(one) else b"")
        self._written.append((offset, tuple((one.dtype, len(one)) for one in arrays)))

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self._kept) + len(self._written)

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | Sequence[Part]:
        """Return one part; a part that lies in the file is read again each time."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        if number < len(self._kept):
            return self._kept[number]
        assert self._file is not None
        return _Written(self._file.fileno(), self._written[number - len(self._kept)], self)


class _Written(Part):
    """A part in the file, whose columns are read when they are asked for."""

    def __init__(self, file: int, place: _Place, owner: Parts) -> None:
        offset, shapes = place
        places = {}
        for name, (dtype, length) in zip(_FIELDS, shapes, strict=True):
            places[name] = (offset, dtype, length)
            offset += dtype.itemsize * length
        vars(self).update(_file=file, _places=places, _owner=owner)

    def __getattr__(self, name: str) -> Any:
        """Read a column."""
        if name not in _FIELDS:
            raise AttributeError(name)
        offset, dtype, length = vars(self)["_places"][name]
        content = os.pread(vars(self)["_file"], dtype.itemsize * length, offset)
        vars(self)[name] = np.frombuffer(content, dtype)
        return vars(self)[name]
