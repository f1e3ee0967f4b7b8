"""The receipt and the undo file that lie beside a checkpoint that surgery wrote."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckptools.surgery import segments, shards
from ckptools.surgery import undo as way_back
from ckptools.surgery.atomic import Target, new_file, set_aside
from ckptools.surgery.output import Result, Written
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
    receipt: of a dry run; :meth:`seal` makes it that of a real one.
    earlier: what came of the operations before the last.
    in_place: papers of earlier runs are kept; one way back leads to the next.  Otherwise they
        stand aside until the output has its name.
    """

    source: Checkpoint
    target: Target
    receipt: Receipt
    earlier: Sequence[Result] = ()
    in_place: bool = False
    _named: tuple[int, int] | None = None
    _aside: dict[Path, Path | None] = field(default_factory=dict)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def _places(self) -> tuple[Path, Path]:
        """Return where undo file and receipt go."""
        path, number = self.target.path, 1
        while self.in_place and paper(path, UNDO).exists():
            number += 1
            ending = self.target.path.name.removeprefix(stem(self.target.path))
            path = path.with_name(f"{stem(self.target.path)}.{number}{ending}")
        return paper(path, UNDO), paper(path, RECEIPT)

    def seal(self, result: Result, temporary: Path) -> None:
        """Write both; the output has all its bytes, and lies at ``temporary``."""
        undo, receipt = self._places()
        files = _through([*self.earlier, result])
        sums = [way_back.manifest({n: shas[i] for n, shas in _sums(files).items()}) for i in (0, 1)]
        if "" in files:
            sums = [str(files[""].source), str(files[""].output)]
        source, output = ({"path": os.path.abspath(p), "sha256": s} for p, s in self._ends(sums))
        for path in (undo, receipt):
            self._aside[path] = self._open.enter_context(set_aside(path)) if path.exists() else None
        way_back.save(Target(undo, force=True), source, output, files)
        self.receipt = replace(
            self.receipt,
            source={**self.receipt.source, "sha256": sums[0], **_listed(files, 0)},
            output={**self.receipt.output, "sha256": sums[1], **_listed(files, 1)},
            verified=True,
            dry_run=False,
            undo=str(undo),
        )
        write_receipt(self.receipt, receipt)
        stat = os.stat(temporary)
        self._named = stat.st_dev, stat.st_ino

    def _ends(self, sums: Sequence[str]) -> Iterator[tuple[Path, str]]:
        container = self.source.container
        folder = container.format in shards.FORMATS
        yield shards.folder_of(container) if folder else Path(self.source.path), sums[0]
        yield self.target.path, sums[1]

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Take both back when the output does not get its name."""
        try:
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
            last = result.get(name, Written(None, None, (0, 0)))
            moved = tuple(segments.through(moved, last.moved))
        found[name] = Written(first.source, last.output, (first.sizes[0], last.sizes[1]), moved)
    return found


def _sums(files: Result) -> dict[str, tuple[str | None, str | None]]:
    return {name: (one.source, one.output) for name, one in files.items()}


def _listed(files: Result, which: int) -> dict[str, Any]:
    """Return the hash of every file, for a checkpoint that is a folder."""
    if "" in files:
        return {}
    return {"files": {name: shas[which] for name, shas in _sums(files).items() if shas[which]}}
