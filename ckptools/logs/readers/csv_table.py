"""Tables of commas, tabs or semicolons with a heading: Lightning's ``metrics.csv`` and others."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ckptools.errors import CorruptFile
from ckptools.logs.builder import Builder
from ckptools.logs.objects import PLACES, add_object, as_number
from ckptools.logs.reading import lines, looks_like_text
from ckptools.logs.registry import readers
from ckptools.types.wording import say

_KNOWN = {name for names in PLACES.values() for name in names}
_TELLING = re.compile(r"loss|acc|lr|损失", re.I)


class CsvTable:
    """Reads a row as an entry; empty cells are no values."""

    order = 30

    def sniff(self, head: bytes) -> bool:
        """Return whether two lines of equal width begin it, the first of which names losses."""
        if not looks_like_text(head):
            return False
        rows = head.decode("utf-8-sig", "replace").splitlines()[:2]
        if len(rows) < 2:
            return False
        names, cells = list(csv.reader(rows, delimiter=_delimiter(rows[0])))
        told = any(name.strip() in _KNOWN or _TELLING.search(name) for name in names)
        plain = all(as_number(name) is None and ":" not in name for name in names)
        filled = [cell for cell in cells if cell.strip()]
        numbers = 2 * sum(as_number(cell) is not None for cell in filled) > len(filled)
        return len(names) > 1 and len(names) == len(cells) and told and plain and numbers

    def read(self, path: Path, builder: Builder) -> None:
        """Read row by row; rows of another width are counted and left out."""
        source = lines(path)
        first = next(source).removeprefix("\ufeff")
        delimiter = _delimiter(first)
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
        odd = 0
        try:
            for cells in csv.reader(source, delimiter=delimiter):
                odd += bool(cells) and len(cells) != len(names)
                if len(cells) == len(names):
                    row = {
                        n: cell for n, cell in zip(names, cells, strict=True) if n and cell.strip()
                    }
                    add_object(row, builder)
        except csv.Error as error:
            raise CorruptFile(
                say("no table: {error}", error=str(error)), where=str(path)
            ) from error
        if odd:
            builder.not_read.append(
                say(
                    "{path}: {odd} rows do not have {columns} cells",
                    path=builder.sources[-1],
                    odd=odd,
                    columns=len(names),
                )
            )


def _delimiter(heading: str) -> str:
    """Return what stands between the names of a heading."""
    return max(",\t;", key=heading.count)


readers.add("csv", CsvTable())
