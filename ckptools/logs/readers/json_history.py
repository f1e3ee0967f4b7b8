"""Whole JSON documents: ``trainer_state.json`` of Hugging Face, and plain lists of objects."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ckptools.errors import CorruptFile
from ckptools.logs.builder import Builder
from ckptools.logs.objects import add_object
from ckptools.logs.reading import looks_like_text
from ckptools.logs.registry import readers
from ckptools.types.wording import say

#: bytes of a document that is read as a whole
LARGEST = 1 << 28


#: a document of columns, as Keras keeps its history; and the beginning of a second document
_COLUMNS = re.compile(rb'\{\s*"[^"]{0,80}"\s*:\s*\[\s*[-+.\d]')
_ANOTHER = re.compile(rb"\n\s*\{")


class JsonHistory:
    """Reads the list of entries that a document holds."""

    order = 9

    def sniff(self, head: bytes) -> bool:
        """Return whether it is one document: with a log history, of objects, or of columns."""
        start = head.lstrip()
        listed = start.startswith(b"[") and start[1:].lstrip().startswith(b"{")
        history = start.startswith(b"{") and b'"log_history"' in head
        columns = _COLUMNS.match(start) is not None and not _ANOTHER.search(start)
        return looks_like_text(head) and (listed or history or columns)

    def read(self, path: Path, builder: Builder) -> None:
        """Read the whole document; CorruptFile where it is cut or holds no list of objects."""
        if path.stat().st_size > LARGEST:
            raise CorruptFile(
                say("the document is too large to be read as a whole"), where=str(path)
            )
        try:
            document: Any = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        except (ValueError, RecursionError) as error:
            raise CorruptFile(
                say("no whole JSON document: {error}", error=str(error)), where=str(path)
            ) from error
        history = document
        if isinstance(document, dict):
            history = document.get("log_history", _rows(document))
        if not isinstance(history, list):
            raise CorruptFile(say("log_history is no list"), where=str(path))
        for entry in history:
            if isinstance(entry, dict):
                add_object(entry, builder)


def _rows(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of a document that has a list for each quantity, one for each epoch."""
    lists = {name: column for name, column in columns.items() if isinstance(column, list)}
    count = max(map(len, lists.values()), default=0)
    return [
        {"epoch": row + 1} | {name: one[row] for name, one in lists.items() if row < len(one)}
        for row in range(count)
    ]


readers.add("json-history", JsonHistory())
