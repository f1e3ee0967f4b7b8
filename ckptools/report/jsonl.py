"""One JSON object per row, one row per line."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.report.json import dumps
from ckptools.report.registry import batches, media
from ckptools.types.blocks import Result


class JsonLines:
    """Writes the rows of a result, a line each."""

    def __call__(
        self, result: Result, *, color: bool = False, width: int = 100, lang: str = "en"
    ) -> str:
        """Return everything at once."""
        return "".join(self.pieces(result, lang=lang))

    def pieces(self, result: Result, *, lang: str = "en") -> Iterator[str]:
        """Yield some lines at a time."""
        for rows in batches(result.rows()):
            yield "".join(dumps(row) + "\n" for row in rows)


media.add("jsonl", JsonLines())
