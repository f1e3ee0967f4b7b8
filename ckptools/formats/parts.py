"""Files that belong to a larger checkpoint: opening one, and adding up what they say."""

from __future__ import annotations

from collections.abc import Iterable

from ckptools.errors import OpenError, UnknownFormat
from ckptools.formats.opening import open_container, recognised
from ckptools.formats.uses import merged
from ckptools.sources import open_source
from ckptools.types.container import Container, GlobalUse


def format_name(path: str) -> str | None:
    """Return the format of a file, or None when it cannot be read or nothing recognises it."""
    try:
        source = open_source(path)
    except OpenError:
        return None
    try:
        return recognised(source)[0]
    except OpenError:
        return None
    finally:
        source.close()


def open_shard(path: str) -> Container:
    """Open a file that an index names, which must not be an index again.

    Raises
    ------
    OpenError: it cannot be read, or its reader refuses it.
    """
    if format_name(path) == "sharded":
        raise UnknownFormat("an index that names an index", where=path)
    return open_container(path)


def merged_globals(parts: Iterable[Container]) -> tuple[GlobalUse, ...]:
    """Return the globals of all parts."""
    return merged(use for part in parts for use in part.globals)
