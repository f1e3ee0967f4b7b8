"""Files that belong to a larger checkpoint: opening one, and adding up what they say."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ckptools.errors import OpenError, UnknownFormat
from ckptools.formats.registry import formats
from ckptools.sources import open_source
from ckptools.types.container import Container, GlobalUse
from ckptools.types.source import Source

_ORDER = ("known", "unknown", "dangerous")


def open_part(path: str, *, exclude: Collection[str] = ()) -> Container:
    """Open one file with the first reader that recognises its content.

    Parameters
    ----------
    path: a regular file.
    exclude: names of formats that the file must not have (an index must not name an index).

    Raises
    ------
    UnknownFormat: no reader recognises it.
    OpenError: it cannot be read, or its reader refuses it.
    """
    source = open_source(path)
    try:
        return _open(path, source, exclude)
    except BaseException:
        source.close()
        raise


def _open(path: str, source: Source, exclude: Collection[str]) -> Container:
    name = _sniffed(source)
    if name is None:
        raise UnknownFormat("no reader recognises the content", where=path)
    if name in exclude:
        raise UnknownFormat(f"a file of the kind {name!r} is not expected here", where=path)
    return formats.get(name).open(path, source)


def _sniffed(source: Source) -> str | None:
    """Return the name of the first reader that recognises the content."""
    readers = sorted(formats.items(), key=lambda item: (item[1].order, item[0]))
    return next((name for name, reader in readers if reader.sniff(source)), None)


def recognise(path: str) -> str | None:
    """Return the format of a file, or None when it cannot be read or nothing recognises it."""
    try:
        source = open_source(path)
    except OpenError:
        return None
    try:
        return _sniffed(source)
    except OpenError:
        return None
    finally:
        source.close()


def merged_globals(parts: Iterable[Container]) -> tuple[GlobalUse, ...]:
    """Return the globals of all parts, counts added up, each with its worst grade."""
    found: dict[str, GlobalUse] = {}
    for part in parts:
        for use in part.globals:
            before = found.get(use.name)
            if before is None:
                found[use.name] = use
            else:
                grade = max(before.grade, use.grade, key=_ORDER.index)
                found[use.name] = GlobalUse(use.name, grade, before.count + use.count)
    return tuple(found.values())
