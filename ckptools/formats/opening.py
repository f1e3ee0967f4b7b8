"""Which format a file has is asked of its content, never of its name."""

from __future__ import annotations

import os
from collections.abc import Callable

from ckptools.errors import OpenError
from ckptools.formats.cross_checks import cross_checked
from ckptools.formats.other_kinds import refusal
from ckptools.formats.registry import formats
from ckptools.sources import open_source
from ckptools.types.container import Container, Fault
from ckptools.types.source import Source


def open_container(path: str) -> Container:
    """Open a checkpoint file or folder: headers are read, payloads are not.

    Raises
    ------
    UnknownFormat: no reader recognises the content; the message says what the file is instead.
    CorruptFile: the reader of its format cannot make sense of it.
    OpenError: the path cannot be read at all.
    """
    if os.path.isdir(path):
        from ckptools.formats.folder import open_folder  # only needed for folders

        return open_folder(path)
    if path.endswith(".distcp"):
        from ckptools.formats.folder import refuse_part

        refuse_part(path)
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
    UnknownFormat: no reader recognises the content; the message says what the file is instead.
    """
    asked = sorted(formats.items(), key=lambda item: (item[1].order, item[0]))
    sure = [(int(reader.sniff(source)), name) for name, reader in asked]
    found = [name for certainty, name in sorted(sure, key=lambda pair: -pair[0]) if certainty > 0]
    if not found:
        raise refusal(source, [name for name, _ in asked])
    return found


def verify_checksums(
    container: Container, progress: Callable[[int, int], None] | None = None
) -> tuple[Fault, ...]:
    """Read every record and compare its CRC-32; see :mod:`ckptools.formats.checksums`."""
    from ckptools.formats.checksums import verify

    return verify(container, progress)
