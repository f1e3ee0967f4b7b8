"""The receipt and the undo file that lie beside a checkpoint that surgery wrote."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

from ckptools.surgery import segments, shards
from ckptools.surgery import undo as way_back
from ckptools.surgery.atomic import Target, give_back, new_file, set_aside
from ckptools.surgery.identity import Identity
from ckptools.surgery.output import Moved, Result, Written
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.plan import Receipt
from ckptools.workflows.find import SUFFIXES

UNDO, RECEIPT = ".undo", ".receipt.json"


def stem(path: Path) -> str:
    """Return a checkpoint's name without the ending that people give to checkpoints."""
    endings = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    return path.name[: -len(max(endings, key=len))] if endings else path.name


def paper(path: Path, ending: str) -> Path:
    """Return where the receipt or the undo file of a checkpoint lies."""
    return path.with_name(f"{stem(path)}{ending}")


def write_receipt(receipt: Receipt, path: Path) -> None:
    """Write a receipt as JSON; one that is there is replaced."""
    with new_file(Target(path, force=True), verify=lambda path: None) as file:
        file.write(json.dumps(receipt.document(), indent=1, allow_nan=False).encode())


@dataclass
class Papers:
    """What leads back from an output, on the disk before the output gets its name.

    Attributes
    ----------
    source: the checkpoint that the first operation reads.
    target: where the last one writes.
    planned: gives the receipt of a dry run; :meth:`seal` makes it that of a real one.
    earlier: what came of the operations before the last.
    in_place: papers of earlier runs are kept; one way back leads to the next.  Otherwise they
        stand aside until the output has its name.
    receipt: that of the real run, once it is sealed.
    """

    source: Checkpoint
    target: Target
    planned: Callable[[], Receipt]
    earlier: Sequence[Result] = ()
    in_place: bool = False
    receipt: Receipt | None = None
    _places: tuple[Path, ...] = ()
    _identify: Callable[[dict[str, Any], dict[str, Any], Result], None] | None = None
    _named: tuple[int, int] | None = None
    _aside: dict[Path, Path | None] = field(default_factory=dict)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _writing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def begin(self, moved: tuple[Moved, ...], stop: Event | None = None) -> None:
        """Write what of a single file does not stand in the output; :meth:`seal` completes it."""
        self._begin(_through([*self.earlier, {"": Written(None, None, moved)}]), stop)

    def _begin(self, files: Result, stop: Event | None = None) -> None:
        self._places = self._free_places()
        self._identify = self._writing.enter_context(
            way_back.begun(
                Target(self._places[0], force=True),
                self._read(),
                {name: one.moved for name, one in files.items()},
                stop,
            )
        )

    def seal(self, result: Result, temporary: Path) -> None:
        """Write both; the output has all its bytes, and lies at ``temporary``."""
        files = _through([*self.earlier, result])
        if self._identify is None:
            self._begin(files)
        assert self._identify is not None
        source, output = _documents(files)
        for path in self._places:
            give_back(path)
            self._aside[path] = self._open.enter_context(set_aside(path)) if path.exists() else None
        here, there = (os.path.abspath(path) for path in (self._read(), self.target.path))
        self._identify(
            {"path": here, "sha256": source["sha256"]},
            {"path": there, "sha256": output["sha256"]},
            files,
        )
        self._writing.close()
        undo, receipt = self._places
        planned = self.planned()
        self.receipt = replace(
            planned,
            source={**planned.source, **source},
            output={**planned.output, **output},
            verified=True,
            dry_run=False,
            undo=str(undo),
        )
        write_receipt(self.receipt, receipt)
        stat = os.stat(temporary)
        self._named = stat.st_dev, stat.st_ino

    def _free_places(self) -> tuple[Path, ...]:
        """Return where undo file and receipt go."""
        path, number = self.target.path, 1
        while self.in_place and paper(path, UNDO).exists():
            number += 1
            ending = self.target.path.name.removeprefix(stem(self.target.path))
            path = path.with_name(f"{stem(self.target.path)}.{number}{ending}")
        return paper(path, UNDO), paper(path, RECEIPT)

    def _read(self) -> Path:
        """Return the file or folder that the first operation read."""
        container = self.source.container
        folder = container.format in shards.FORMATS
        return shards.folder_of(container) if folder else Path(self.source.path)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Take both back when the output does not get its name."""
        try:
            with self._writing:
                yield
        finally:
            named = self._is_named()
            for path, old in self._aside.items():
                if named and old is not None:
                    old.unlink(missing_ok=True)
                elif old is not None:
                    old.replace(path)
                elif not named:
                    path.unlink(missing_ok=True)
            self._open.close()

    def _is_named(self) -> bool:
        try:
            stat = os.stat(self.target.real)
        except OSError:
            return False
        return (stat.st_dev, stat.st_ino) == self._named


def _through(results: Sequence[Result]) -> Result:
    """Return what came of each file over all operations."""
    found: Result = {}
    for name, first in results[0].items():
        moved, last = first.moved, first
        for result in results[1:]:
            last = result.get(name, Written(None, None))
            moved = tuple(segments.through(moved, last.moved))
        found[name] = Written(first.source, last.output, moved)
    return found


def _documents(files: Result) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the receipt says of source and output; of a folder the hash of every file."""
    return (
        _document({name: one.source for name, one in files.items()}),
        _document({name: one.output for name, one in files.items()}),
    )


def _document(files: dict[str, Identity | None]) -> dict[str, Any]:
    known = {name: one for name, one in files.items() if one is not None}
    if "" in known:
        return known[""].document()
    sums = {name: one.digest for name, one in known.items()}
    return {"sha256": way_back.manifest(sums), "files": sums}
