"""What a format reader gives: the inert tree of one file, and everything wrong with the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ckptools.types.source import Source
from ckptools.types.tensor import Storage


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in the file that contradicts itself or the format.

    Attributes
    ----------
    kind: a stable word that rules match on, e.g. ``truncated``, ``crc-mismatch``,
        ``duplicate-record``, ``orphan-record``, ``tensor-out-of-bounds``, ``missing-shard``.
    where: record, tensor or file.
    message: one line for a person.
    scope: "container" (surgery refuses to touch the file) or "object" (it may go on).
    evidence: numbers behind it.
    """

    kind: str
    where: str
    message: str
    scope: str = "container"
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GlobalUse:
    """A global that the pickle names, graded: known, unknown or dangerous.

    The grade is a report.  Being inert is the safety.
    """

    name: str
    grade: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of an archive, in file order: what surgery copies and what a CRC covers.

    Attributes
    ----------
    header_start: offset of the entry's own header in the source.
    directory_start: offset of its entry in the archive's directory, where there is one.
    """

    name: str
    header_start: int
    storage: Storage
    directory_start: int | None = None


@dataclass(frozen=True)
class Container:
    """One opened file (or folder): headers were read, payloads were not.

    Attributes
    ----------
    path: as the user gave it.
    format: the registered name, e.g. ``torch-zip``.
    size_bytes: of the file, or of all files of a folder.
    root: the inert tree (:mod:`ckptools.types.tree`); a ``Pairs`` of tensors for flat formats.
    source: the file's bytes (None for folders).
    globals: what the pickle would have imported.
    faults: what is wrong with the container or its objects.
    records: entries of an archive in file order, empty where the format has none.
    parts: containers of a folder by their path relative to it (shards, optimizer.pt, ...).
    metadata: what the format itself says (safetensors metadata, zip version, byte order).
    not_judged: parts of the input that were not looked at, with the reason.
    """

    path: str
    format: str
    size_bytes: int
    root: Any
    source: Source | None = None
    globals: tuple[GlobalUse, ...] = ()
    faults: tuple[Fault, ...] = ()
    records: tuple[Record, ...] = ()
    parts: dict[str, Container] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    not_judged: tuple[str, ...] = ()
