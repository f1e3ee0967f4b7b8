"""The way back: a sparse patch from which, with the output, the source comes back bit for bit.

The patch is a small zip of our own: ``undo.json`` says which ranges of the source still stand in
the output and names both files' SHA-256; ``literal`` holds the rest.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptools.errors import CorruptFile, OperationError, VerificationFailed
from ckptools.surgery import output, segments
from ckptools.surgery.atomic import Target, new_file
from ckptools.surgery.output import Moved, Output, followed
from ckptools.surgery.segments import Copy, Fresh, Segment

SCHEMA = "ckptools.undo/1"
_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Undo:
    """An undo file's header.

    Attributes
    ----------
    source, output: ``{"path", "sha256", "size"}`` of the two files when the patch was made.
    segments: the source in order, as ``["output", start, length]`` or ``["literal", start,
        length]``.
    """

    source: dict[str, Any]
    output: dict[str, Any]
    segments: tuple[tuple[str, int, int], ...]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in chunks."""
    with path.open("rb", buffering=0) as file:
        return output.sha256(file.fileno())


def way_back(size: int, moved: Iterable[Moved]) -> Iterator[tuple[str, int, int]]:
    """Yield the source's ``size`` bytes in order: from the output where they still stand there.

    Each item is ("output", start in the output, length) or ("literal", start in the source,
    length).
    """
    position = 0
    for part in sorted(moved, key=lambda part: part.source):
        skip = max(position - part.source, 0)
        if skip >= part.length:
            continue
        if part.source > position:
            yield "literal", position, part.source - position
        yield "output", part.output + skip, part.length - skip
        position = part.source + part.length
    if position < size:
        yield "literal", position, size - position


def save(
    target: Target, source: dict[str, Any], written: dict[str, Any], moved: Iterable[Moved]
) -> None:
    """Write the undo file of an operation.

    Parameters
    ----------
    source, written: ``{"path", "sha256"}``; both files are there.
    moved: the ranges of the source that stand in both.
    """
    size = os.path.getsize(source["path"])
    parts = list(way_back(size, moved))
    described = {
        "schema": SCHEMA,
        "source": {**source, "size": size},
        "output": {**written, "size": os.path.getsize(written["path"])},
        "segments": parts,
    }
    literal = sum(length for kind, _, length in parts if kind == "literal")
    with (
        new_file(target, size=literal, verify=lambda path: _check(path, literal)) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr("undo.json", json.dumps(described))
        with archive.open("literal", "w", force_zip64=True) as record:
            for chunk in _literals(Path(source["path"]), parts):
                record.write(chunk)


def _literals(path: Path, parts: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
    with path.open("rb") as file:
        for kind, start, length in parts:
            if kind == "literal":
                file.seek(start)
                yield from _exactly(file, length)


def _exactly(file: Any, length: int) -> Iterator[bytes]:
    while length:
        data = file.read(min(length, _CHUNK))
        if not data:
            raise CorruptFile("ends too early", where=str(getattr(file, "name", "undo file")))
        yield data
        length -= len(data)


def _check(path: Path, literal: int) -> None:
    """Read the undo file back: its CRCs hold and its literal part has the right length."""
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None or archive.getinfo("literal").file_size != literal:
            raise VerificationFailed("the undo file does not read back", where=str(path))


def read(path: Path) -> Undo:
    """Return the header of an undo file; CorruptFile when it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read("undo.json"))
            parts = tuple((str(k), int(s), int(n)) for k, s, n in described["segments"])
            if described["schema"] != SCHEMA:
                raise ValueError(described["schema"])
            return Undo(described["source"], described["output"], parts)
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise CorruptFile(
            f"is not an undo file ({error})", where=str(path), next="give the .undo file"
        ) from None


def restore(undo_file: Path, changed: Path, target: Target) -> str:
    """Write the source back from ``changed`` and the undo file; return its SHA-256.

    Raises OperationError when ``changed`` is not the file the operation wrote, VerificationFailed
    when what came back is not the source (nothing is written then).
    """
    undo = read(undo_file)
    if os.path.getsize(changed) != undo.output["size"] or sha256(changed) != undo.output["sha256"]:
        raise OperationError(
            "is no longer the file that the operation wrote",
            where=str(changed),
            next="undo later changes first, newest first",
        )
    size = int(undo.source["size"])
    with (
        new_file(target, size=size, like=changed, verify=lambda path: None) as file,
        changed.open("rb") as old,
        zipfile.ZipFile(undo_file) as archive,
        archive.open("literal") as literal,
        ThreadPoolExecutor(1) as pool,
    ):
        written = Output(file, old.fileno())
        with followed(written, pool) as hashed:
            segments.write(_segments(undo, literal), written)
        if hashed.result() != undo.source["sha256"]:
            raise VerificationFailed("the source does not come back", where=str(undo_file))
    return str(undo.source["sha256"])


def _segments(undo: Undo, literal: Any) -> list[Segment]:
    def take(length: int) -> Fresh:
        return Fresh(length, lambda: _exactly(literal, length))

    return [
        Copy(start, length) if kind == "output" else take(length)
        for kind, start, length in undo.segments
    ]
