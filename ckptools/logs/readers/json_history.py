"""Whole JSON documents: ``trainer_state.json`` of Hugging Face, and plain lists of objects."""

from __future__ import annotations

import json
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


class JsonHistory:
    """Reads the list of entries that a document holds."""

    order = 15

    def sniff(self, head: bytes) -> bool:
        """Return whether it is a document with a log history, or a list of objects."""
        start = head.lstrip()
        listed = start.startswith(b"[") and start[1:].lstrip().startswith(b"{")
        history = start.startswith(b"{") and b'"log_history"' in head
        return looks_like_text(head) and (listed or history)

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
        history = document.get("log_history") if isinstance(document, dict) else document
        if not isinstance(history, list):
            raise CorruptFile(say("log_history is no list"), where=str(path))
        for entry in history:
            if isinstance(entry, dict):
                add_object(entry, builder)


readers.add("json-history", JsonHistory())
