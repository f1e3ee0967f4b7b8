"""Which checkpoint is meant when none is named: the only one of the current folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ckptools.errors import AmbiguousLayout, OpenError
from ckptools.formats.folder import ACCELERATE, ADAPTERS, TRAINER, WEIGHTS
from ckptools.types.wording import say

#: endings that people give to checkpoints; only for guessing which files of a folder are some
SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".pth.tar", ".pt.tar", ".tar")
_DIGITS = re.compile(r"\d+")
_LISTED = 10


@dataclass(frozen=True, slots=True)
class Found:
    """The checkpoint that was picked, and why it and no other."""

    path: Path
    why: str


def find(folder: Path) -> Found:
    """Return the checkpoint of ``folder``.

    A folder that is itself a checkpoint (shards with an index, a trainer's folder), else its only
    checkpoint file, else the newest of one series: names that differ in numbers alone, ordered by
    these.  Files that surgery wrote (a receipt lies beside them) are never picked.

    Raises
    ------
    OpenError: there is none.
    AmbiguousLayout: several unrelated ones; they are listed.
    """
    if _is_checkpoint(folder):
        return Found(folder, say("the folder is one checkpoint"))
    files = candidates(folder)
    if not files:
        raise OpenError(
            "holds no checkpoint", where=str(folder), next="name one, e.g. ckptools inspect FILE"
        )
    if len(files) == 1:
        return Found(files[0], say("the only checkpoint here"))
    if len({_DIGITS.sub("#", path.name) for path in files}) == 1:
        newest = max(files, key=_numbers)
        return Found(newest, say("the newest of {number} here", number=len(files)))
    raise AmbiguousLayout(
        f"holds {len(files)} checkpoints that are no one series: {_listed(files)}",
        where=str(folder),
        next="name one of them",
    )


def _is_checkpoint(folder: Path) -> bool:
    """Return whether the names in ``folder`` are those of shards or of a trainer's folder."""
    names = {path.name for path in folder.iterdir()}
    if "trainer_state.json" in names or any(name.endswith(".index.json") for name in names):
        return True
    beside = (TRAINER.fullmatch(name) or ACCELERATE.fullmatch(name) for name in names)
    return not names.isdisjoint((*WEIGHTS, *ADAPTERS)) and any(beside)


def resolve(path: Path | None, tell: Callable[[str], None]) -> Path:
    """Return ``path``, or where it is None the checkpoint of the current folder, which is named."""
    if path is not None:
        return path
    found = find(Path())
    tell(say("{path}: {why}", path=found.path, why=found.why))
    return found.path


def candidates(folder: Path) -> list[Path]:
    """Return the checkpoint files of ``folder``, without those that surgery wrote."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(SUFFIXES) and path.is_file() and not has_receipt(path)
    )


def has_receipt(path: Path) -> bool:
    """Return whether a receipt beside ``path`` says that surgery wrote it."""
    endings = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    stem = path.name[: -len(max(endings, key=len))] if endings else path.name
    return (path.parent / f"{stem}.receipt.json").exists()


def _numbers(path: Path) -> list[int]:
    """Return the numbers in a name, in order."""
    return [int(digits) for digits in _DIGITS.findall(path.name)]


def _listed(files: list[Path]) -> str:
    """Return the first names, and how many more there are."""
    names = ", ".join(path.name for path in files[:_LISTED])
    return names + (f" and {len(files) - _LISTED} more" if len(files) > _LISTED else "")
