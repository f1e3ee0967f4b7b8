"""JSON lines: mmcv and mmengine JSON, DETR's log.txt, and everybody's own.

mmengine's validation rows carry no epoch of their own: their step is the epoch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ckptools.errors import CorruptFile
from ckptools.logs.builder import Builder
from ckptools.logs.objects import add_object
from ckptools.logs.reading import lines, looks_like_text
from ckptools.logs.registry import readers
from ckptools.types.wording import say


class JsonLines:
    """Reads one object a line."""

    order = 10

    def sniff(self, head: bytes) -> bool:
        """Return whether the first line is a JSON object, or the beginning of a long one."""
        if not looks_like_text(head):
            return False
        first, end, _ = head.lstrip().partition(b"\n")
        return isinstance(_object(first.decode("utf-8", "replace")), dict) or (
            not end and first.startswith(b'{"')
        )

    def read(self, path: Path, builder: Builder) -> None:
        """Read line by line; lines that are no objects are counted and left out."""
        bad: list[int] = []
        good = 0
        counted = False
        for number, line in enumerate(lines(path), 1):
            if not line.strip():
                continue
            entry = _object(line)
            if not isinstance(entry, dict):
                bad.append(number)
                continue
            good += 1
            counted = counted or ("epoch" in entry and "iter" in entry)
            add_object(_placed(entry) if counted else entry, builder)
        _account(path, bad, good, builder)


def _placed(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry, a validation row of mmengine put right."""
    if "epoch" in entry or "mode" in entry or "step" not in entry:
        return entry
    return {**entry, "step": None, "epoch": entry["step"], "mode": "val"}


def _account(path: Path, bad: list[int], good: int, builder: Builder) -> None:
    """Say what was left out; CorruptFile when that is most of the file."""
    if len(bad) > good:
        raise CorruptFile(
            say("{bad} of {lines} lines are no JSON objects", bad=len(bad), lines=good + len(bad)),
            where=f"{path}, line {bad[0]}",
        )
    if bad:
        builder.not_read.append(
            say(
                "{path}: {bad} lines are no JSON objects, the first is line {first}",
                path=builder.sources[-1],
                bad=len(bad),
                first=bad[0],
            )
        )


def _object(line: str) -> Any:
    """Return the value of a line, or None where it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


readers.add("json-lines", JsonLines())
