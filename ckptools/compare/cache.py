"""What two unchanged files gave once need not be computed again.

A file is known by the checksums and sizes of its records (a zip archive states them, so nothing is
read), else by size, time of change and inode.  Results are kept as JSON, one small file each, in
the user's cache folder; a cache that cannot be read or written costs time and nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from ckptools import __version__
from ckptools.types.container import Container

PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Return the folder for cached results: in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ckptools" / "pairs"


def identity(container: Container) -> str | None:
    """Return what tells a file's content from any other's, None where nothing does."""
    records = [(one.name, one.storage.crc32, one.storage.nbytes) for one in container.records]
    if records and all(crc is not None for _, crc, _ in records):
        return _digest(["records", container.size_bytes, records])
    if not os.path.isfile(container.path):
        return None
    found = os.stat(container.path)
    return _digest(["stat", found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev])


def key(*parts: Any) -> str:
    """Return the name under which a result of these inputs is kept.

    Results of other versions, or of this one before its files were changed, have other names.
    """
    return _digest([__version__, _sources(), *parts])


@functools.cache
def _sources() -> str:
    """Return what tells the modules of this package from those of any other day."""
    found = [(str(path), path.stat()) for path in sorted(PACKAGE.rglob("*.py"))]
    return _digest([(name, status.st_size, status.st_mtime_ns) for name, status in found])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def get(name: str) -> dict[str, Any] | None:
    """Return the result kept under ``name``, or None."""
    try:
        found = json.loads((folder() / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def put(name: str, result: dict[str, Any]) -> None:
    """Keep a result, whole or not at all."""
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=folder(), suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(result, file)
        os.replace(path, folder() / f"{name}.json")
