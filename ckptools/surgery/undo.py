"""The way back: a sparse patch from which, with the output, the source comes back bit for bit.

The patch is a small zip of our own: ``undo.json`` says which ranges of the source still stand in
the output and names both files' SHA-256, for every file of a folder; ``literal`` holds the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ckptools.errors import CorruptFile, OperationError, VerificationFailed
from ckptools.surgery import output, segments
from ckptools.surgery.atomic import Target, new_file, new_folder
from ckptools.surgery.output import Moved, Output, Result, followed
from ckptools.surgery.segments import Copy, Fresh, Segment

SCHEMA = "ckptools.undo/1"
FOLDERS = "ckptools.undo/2"
_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Patch:
    """How one file of the source comes back.

    Attributes
    ----------
    name: inside its folder; "" for a checkpoint that is a single file.
    source, output: ``{"sha256", "size"}``; both None where the operation has no such file.
    segments: the source in order, as ``["output", start, length]`` or ``["literal", start,
        length]``.
    """

    name: str
    source: dict[str, Any]
    output: dict[str, Any]
    segments: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Undo:
    """An undo file's header.

    Attributes
    ----------
    source, output: ``{"path", "sha256"}`` of the checkpoints when the patch was made.
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


def save(target: Target, source: dict[str, Any], written: dict[str, Any], files: Result) -> None:
    """Write the undo file of an operation.

    Parameters
    ----------
    source, written: ``{"path", "sha256"}`` of the checkpoints; the source is still there.
    files: what came of each file.
    """
    patches = [
        Patch(
            name,
            {"sha256": one.source, "size": one.sizes[0]},
            {"sha256": one.output, "size": one.sizes[1]},
            tuple(way_back(one.sizes[0], one.moved)),
        )
        for name, one in files.items()
    ]
    folder = "" not in files
    undo = Undo(source, written, tuple(patches), folder)
    literal = sum(length for one in patches for kind, _, length in one.segments if kind[0] == "l")
    with (
        new_file(target, size=literal, verify=lambda path: _check(path, literal)) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr("undo.json", json.dumps(_described(undo)))
        with archive.open("literal", "w", force_zip64=True) as record:
            for one in patches:
                for chunk in _literals(Path(source["path"], one.name), one.segments):
                    record.write(chunk)


def _described(undo: Undo) -> dict[str, Any]:
    """Return the JSON of a header; a single file's stands in it flat."""
    if undo.folder:
        files = [asdict(one) for one in undo.files]
        return {"schema": FOLDERS, "source": undo.source, "output": undo.output, "files": files}
    (one,) = undo.files
    return {
        "schema": SCHEMA,
        "source": {**one.source, **undo.source},
        "output": {**one.output, **undo.output},
        "segments": one.segments,
    }


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
    return Undo(source, output, tuple(_patch(one) for one in patches), folder)


def _patch(described: dict[str, Any]) -> Patch:
    name = str(described["name"])
    if name in (".", "..") or os.path.basename(name) != name:
        raise ValueError(f"names {name!r}")
    parts = tuple((str(kind), int(start), int(n)) for kind, start, n in described["segments"])
    return Patch(name, described["source"], described["output"], parts)


def restore(undo_file: Path, changed: Path, target: Target) -> str:
    """Write the source back from ``changed`` and the undo file; return its SHA-256.

    Raises OperationError when ``changed`` is not what the operation wrote, VerificationFailed
    when what came back is not the source (nothing is written then).
    """
    undo = read(undo_file)
    _require_output(undo, changed)
    size = sum(int(one.source["size"]) for one in undo.files)
    with zipfile.ZipFile(undo_file) as archive, archive.open("literal") as literal:
        if undo.folder:
            with new_folder(target, size=size, like=changed, verify=lambda path: None) as folder:
                for one in undo.files:
                    with (folder / one.name).open("x+b") as file:
                        _bring_back(one, changed / one.name, literal, file)
        else:
            with new_file(target, size=size, like=changed, verify=lambda path: None) as file:
                _bring_back(undo.files[0], changed, literal, file)
    return str(undo.source["sha256"])


def _require_output(undo: Undo, changed: Path) -> None:
    """Raise OperationError unless every file is what the operation wrote."""
    (first, *_) = undo.files
    changes = first.source["sha256"] != first.output["sha256"]
    if not undo.folder and changes and _is(changed, first.source):
        raise OperationError(
            "is the source already: the operation never replaced it", where=str(changed)
        )
    for one in undo.files:
        path = changed / one.name if one.name else changed
        if one.output["sha256"] is not None and not _is(path, one.output):
            raise OperationError(
                "is no longer the file that the operation wrote",
                where=str(path),
                next="undo later changes first, newest first",
            )


def stands(undo: Undo, path: Path) -> bool:
    """Return whether the source lies at ``path`` as it was."""
    return all(_is(path / one.name if one.name else path, one.source) for one in undo.files)


def _is(path: Path, known: dict[str, Any]) -> bool:
    """Return whether a file has the length and the hash noted."""
    return (
        path.is_file() and path.stat().st_size == known["size"] and sha256(path) == known["sha256"]
    )


def _bring_back(patch: Patch, changed: Path, literal: Any, file: BinaryIO) -> None:
    """Write one file of the source, and check its hash."""
    there = patch.output["sha256"] is not None
    with (changed if there else Path(os.devnull)).open("rb") as old, ThreadPoolExecutor(1) as pool:
        written = Output(file, old.fileno())
        with followed(written, pool) as hashed:
            segments.write(_segments(patch, literal), written)
            written.finish()
            os.fsync(file.fileno())
            if there:
                os.fchmod(file.fileno(), os.fstat(old.fileno()).st_mode & 0o7777)
        if hashed.result() != patch.source["sha256"]:
            raise VerificationFailed("the source does not come back", where=str(file.name))


def _segments(patch: Patch, literal: Any) -> list[Segment]:
    def take(length: int) -> Fresh:
        return Fresh(length, lambda: _exactly(literal, length))

    return [
        Copy(start, length) if kind == "output" else take(length)
        for kind, start, length in patch.segments
    ]


def manifest(files: Mapping[str, str | None]) -> str:
    """Return one SHA-256 for the files of a folder: of the lines that ``sha256sum`` would print."""
    lines = (f"{sha}  {name}\n" for name, sha in sorted(files.items()) if sha is not None)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
