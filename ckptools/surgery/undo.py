"""The way back: a sparse patch from which, with the output, the source comes back bit for bit.

The patch is a small zip of our own: ``undo.json`` says which ranges of the source still stand in
the output and what identifies both files, for every file of a folder; ``literal`` holds the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

from ckptools.errors import CorruptFile, OperationError, VerificationFailed
from ckptools.surgery import segments
from ckptools.surgery.atomic import Target, new_file, new_folder
from ckptools.surgery.identity import Identity, Stated, fits, holds, of
from ckptools.surgery.identity import read as bytes_of
from ckptools.surgery.output import Moved, Output, Result
from ckptools.surgery.segments import Copy, Fresh, Segment

SCHEMA = "ckptools.undo/1"
FOLDERS = "ckptools.undo/2"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Patch:
    """How one file of the source comes back.

    Attributes
    ----------
    name: inside its folder; "" for a checkpoint that is a single file.
    source, output: what tells the files from others; None where the operation has no such file.
    segments: the source in order, as ``["output", start, length]`` or ``["literal", start,
        length]``.
    """

    name: str
    source: Identity | None
    output: Identity | None
    segments: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Undo:
    """An undo file's header.

    Attributes
    ----------
    source, output: ``{"path", "sha256", ...}`` of the checkpoints when the patch was made.
    files: a patch for each file, in the order of their literal parts.
    folder: whether the checkpoint is a folder.
    """

    source: dict[str, Any]
    output: dict[str, Any]
    files: tuple[Patch, ...]
    folder: bool = False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in chunks."""
    with path.open("rb", buffering=0) as file:
        return of(file.fileno()).digest


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


@contextlib.contextmanager
def begun(
    target: Target, source: Path, moved: Mapping[str, tuple[Moved, ...]], stop: Event | None = None
) -> Iterator[Callable[[dict[str, Any], dict[str, Any], Result], None]]:
    """Write the literal parts of an undo file, and its header when that is given.

    So the long part can be written before it is known what identifies the files.  The undo file
    gets its name when the context is left, and none when it is left with an error.

    Parameters
    ----------
    source: the checkpoint, a file or a folder; it is still there.
    moved: of each of its files (``""`` for a single one) what stands in the output.
    stop: CancelledError is raised once this is set.

    Yields
    ------
    A function of ``{"path", "sha256"}`` of both checkpoints and what came of each file.
    """
    parts = {name: tuple(way_back(_size(source / name), ranges)) for name, ranges in moved.items()}
    literal = sum(n for one in parts.values() for kind, _, n in one if kind == "literal")
    with (
        new_file(target, size=literal, verify=lambda path: _check(path, literal)) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        with archive.open("literal", "w", force_zip64=True) as record:
            for name, one in parts.items():
                for chunk in _literals(source / name, one):
                    if stop is not None and stop.is_set():
                        raise CancelledError
                    record.write(chunk)

        def identify(before: dict[str, Any], after: dict[str, Any], files: Result) -> None:
            patches = tuple(
                Patch(name, one.source, one.output, parts[name]) for name, one in files.items()
            )
            undo = Undo(before, after, patches, folder="" not in files)
            archive.writestr("undo.json", json.dumps(_described(undo)))

        yield identify


def _size(path: Path) -> int:
    """Return the length of a file of the source; one that only the output has takes nothing."""
    return path.stat().st_size if path.is_file() else 0


def _described(undo: Undo) -> dict[str, Any]:
    """Return the JSON of a header; a single file's stands in it flat."""
    if undo.folder:
        files = [
            {
                "name": one.name,
                "source": _noted(one.source),
                "output": _noted(one.output),
                "segments": one.segments,
            }
            for one in undo.files
        ]
        return {"schema": FOLDERS, "source": undo.source, "output": undo.output, "files": files}
    (one,) = undo.files
    return {
        "schema": SCHEMA,
        "source": {**undo.source, **_noted(one.source)},
        "output": {**undo.output, **_noted(one.output)},
        "segments": one.segments,
    }


def _noted(known: Identity | None) -> dict[str, Any]:
    """Return the JSON of an identity."""
    if known is None:
        return {"sha256": None, "size": 0}
    if not known.ranges:
        return {"sha256": known.digest, "size": known.size}
    ranges = [(one.start, one.length, one.crc) for one in known.ranges]
    return {
        "sha256": None,
        "size": known.size,
        "outline_sha256": known.digest,
        "crc32": ranges,
    }


def _identity(noted: dict[str, Any]) -> Identity | None:
    """Return what :func:`_noted` wrote."""
    size, ranges = int(noted["size"]), noted.get("crc32", ())
    digest = noted["outline_sha256"] if ranges else noted["sha256"]
    if digest is None:
        return None
    return Identity(size, str(digest), tuple(Stated(*map(int, one)) for one in ranges))


def _literals(path: Path, parts: Iterable[tuple[str, int, int]]) -> Iterator[memoryview]:
    with path.open("rb", buffering=0) as file:
        for kind, start, length in parts:
            if kind == "literal":
                yield from bytes_of(file.fileno(), start, start + length)


def _exactly(file: Any, length: int) -> Iterator[bytes]:
    while length:
        data = file.read(min(length, _CHUNK))
        if not data:
            raise CorruptFile("ends too early", where=str(getattr(file, "name", "undo file")))
        yield data
        length -= len(data)


def _check(path: Path, literal: int) -> None:
    """Read the undo file back: its CRCs hold, its literal part has the right length."""
    read(path)
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None or archive.getinfo("literal").file_size != literal:
            raise VerificationFailed("the undo file does not read back", where=str(path))


def read(path: Path) -> Undo:
    """Return the header of an undo file; CorruptFile when it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read("undo.json"))
            return _understood(described)
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise CorruptFile(
            f"is not an undo file ({error})", where=str(path), next="give the .undo file"
        ) from None


def _understood(described: dict[str, Any]) -> Undo:
    source, output, folder = described["source"], described["output"], "files" in described
    if described["schema"] != (FOLDERS if folder else SCHEMA):
        raise ValueError(described["schema"])
    patches = described["files"] if folder else [{**described, "name": ""}]
    if not folder:
        source, output = _end(source), _end(output)
    return Undo(source, output, tuple(_patch(one) for one in patches), folder)


def _end(noted: dict[str, Any]) -> dict[str, Any]:
    """Return path and identity of a single file as a receipt says them."""
    known = _identity(noted)
    return {"path": noted["path"], **(known.document() if known else {"sha256": None})}


def _patch(described: dict[str, Any]) -> Patch:
    name = str(described["name"])
    if name in (".", "..") or os.path.basename(name) != name:
        raise ValueError(f"names {name!r}")
    parts = tuple((str(kind), int(start), int(n)) for kind, start, n in described["segments"])
    return Patch(name, _identity(described["source"]), _identity(described["output"]), parts)


def restore(undo_file: Path, changed: Path, target: Target) -> None:
    """Write the source back from ``changed`` and the undo file.

    Raises OperationError when ``changed`` is not what the operation wrote, VerificationFailed
    when what came back is not the source (nothing is written then).
    """
    undo = read(undo_file)
    _require_output(undo, changed)
    size = sum(one.source.size for one in undo.files if one.source)
    with zipfile.ZipFile(undo_file) as archive, archive.open("literal") as literal:
        if undo.folder:
            with new_folder(target, size=size, like=changed, verify=lambda path: None) as folder:
                for one in undo.files:
                    with (folder / one.name).open("x+b") as file:
                        _bring_back(one, changed / one.name, literal, file)
        else:
            with new_file(target, size=size, like=changed, verify=lambda path: None) as file:
                _bring_back(undo.files[0], changed, literal, file)


def _require_output(undo: Undo, changed: Path) -> None:
    """Raise OperationError unless every file is what the operation wrote."""
    (first, *_) = undo.files
    if not undo.folder and first.source != first.output and fits(changed, first.source):
        raise OperationError(
            "is the source already: the operation never replaced it", where=str(changed)
        )
    for one in undo.files:
        path = changed / one.name if one.name else changed
        if one.output is not None and not fits(path, one.output):
            raise OperationError(
                "is no longer the file that the operation wrote",
                where=str(path),
                next="undo later changes first, newest first",
            )


def stands(undo: Undo, path: Path) -> bool:
    """Return whether the source lies at ``path`` as it was."""
    return all(fits(path / one.name if one.name else path, one.source) for one in undo.files)


def _bring_back(patch: Patch, changed: Path, literal: Any, file: BinaryIO) -> None:
    """Write one file of the source, and read it back."""
    there = patch.output is not None
    with (changed if there else Path(os.devnull)).open("rb") as old, ThreadPoolExecutor(1) as pool:
        written = Output(file, old.fileno(), pool=pool)
        written.reserve(patch.source.size if patch.source else 0)
        segments.write(_segments(patch, literal), written)
        written.finish()
        os.fsync(file.fileno())
        if there:
            os.fchmod(file.fileno(), os.fstat(old.fileno()).st_mode & 0o7777)
    if not holds(file.fileno(), patch.source):
        raise VerificationFailed("the source does not come back", where=str(changed))


def _segments(patch: Patch, literal: Any) -> list[Segment]:
    def take(length: int) -> Fresh:
        return Fresh(length, lambda: _exactly(literal, length))

    return [
        Copy(start, length) if kind == "output" else take(length)
        for kind, start, length in patch.segments
    ]


def manifest(files: Mapping[str, str]) -> str:
    """Return one SHA-256 for the files of a folder: of the lines that ``sha256sum`` would print."""
    lines = (f"{sha}  {name}\n" for name, sha in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
