"""The JSON document of a result; scripts rely on its fields."""

from __future__ import annotations

import json
import math
from typing import Any

from ckptools import __version__
from ckptools.report.escape import escape_json
from ckptools.report.registry import media
from ckptools.types.blocks import Result

#: what lies deeper in a value is shown as text: values may come from a hostile file
DEEPEST = 40


def plain(value: Any, depth: int = DEEPEST) -> Any:
    """Return ``value`` as JSON types; non-finite numbers are "nan", "inf" and "-inf".

    numpy scalars and arrays become numbers and lists, integers beyond 4,000 digits and anything
    else becomes text.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 8192 else hex(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        return {_key(key): plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth - 1) for item in value]
    return plain(value.tolist(), depth - 1) if hasattr(value, "tolist") else str(value)


def _key(key: Any) -> str:
    """Return a dict key as JSON spells it."""
    return key if isinstance(key, str) else str(plain(key, 1))


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Return JSON text in which every character is visible and every number is one."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return escape_json(text)


@media.register("json")
def render(result: Result, *, color: bool = False, width: int = 100, lang: str = "en") -> str:
    """Return the whole document, indented, with the version that wrote it."""
    document = result.document()
    head = {"schema": document.get("schema"), "tool": {"version": __version__}}
    return dumps(head | document, indent=1) + "\n"
