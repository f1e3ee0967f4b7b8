"""Which format a file has is asked of its content, never of its name."""

from __future__ import annotations

import os
from collections.abc import Callable

from ckptools.errors import OpenError, UnknownFormat
from ckptools.formats.cross_checks import cross_checked
from ckptools.formats.registry import formats
from ckptools.sources import open_source
from ckptools.types.container import Container, Fault
from ckptools.types.source import Source


def open_container(path: str) -> Container:
    """Open a checkpoint file or folder: headers are read, payloads are not.

    Raises
    ------
    UnknownFormat: no reader recognises the content; the message names those that were asked.
    CorruptFile: the reader of its format cannot make sense of it.
    OpenError: the path cannot be read at all.
    """
    if os.path.isdir(path):
        from ckptools.formats.folder import open_folder  # only needed for folders

        return open_folder(path)
    source = open_source(path)
    try:
        name, *others = recognised(source)
        container = formats.get(name).open(path, source)
    except OpenError:
        source.close()
        raise
    return cross_checked(container, others)


def recognised(source: Source) -> list[str]:
    """Return the formats that the content may have, the surest first; never an empty list.

    Two that are equally sure stand in the order of their readers, which is the order in which
    torch tries them.

    Raises
    ------
    UnknownFormat: no reader recognises the content; the message names those that were asked.
    """
    asked = sorted(formats.items(), key=lambda item: (item[1].order, item[0]))
    sure = [(int(reader.sniff(source)), name) for name, reader in asked]
    found = [name for certainty, name in sorted(sure, key=lambda pair: -pair[0]) if certainty > 0]
    if not found:
        raise UnknownFormat(
            f"no reader recognises the content (asked: {', '.join(name for name, _ in asked)})",
            where=source.name,
            next=_advice(source),
        )
    return found


def _advice(source: Source) -> str:
    """Say what the file looks like instead."""
    if source.size == 0:
        return "the file is empty"
    head = source.read_at(0, min(_LONGEST, source.size))
    for signature, kind in _OTHERS.items():
        if head.startswith(signature):
            return f"it looks like {kind}"
    return "is it a checkpoint at all?"


_OTHERS = {
    b"\x1f\x8b": "gzip: unpack it first",
    b"BZh": "bzip2: unpack it first",
    b"\xfd7zXZ": "xz: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"\x89HDF": "HDF5, which no PyTorch checkpoint is",
    b"\x93NUMPY": "a numpy array",
    b"GGUF": "GGUF, a format for inference",
    b"version https://git-lfs": "a Git LFS pointer: git lfs pull fetches the file itself",
    b"<": "a web page or XML: the download went wrong",
}
_LONGEST = max(map(len, _OTHERS))


def verify_checksums(
    container: Container, progress: Callable[[int, int], None] | None = None
) -> tuple[Fault, ...]:
    """Read every record and compare its CRC-32; see :mod:`ckptools.formats.checksums`."""
    from ckptools.formats.checksums import verify

    return verify(container, progress)
