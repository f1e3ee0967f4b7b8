"""What the sources say to a user, found in their syntax trees."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import ckptools

ROOT = Path(ckptools.__file__).parent


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", "")
            yield name, node


def _literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@functools.cache
def said() -> dict[str, str]:
    """Return every template given to ``say``, with where; ``?`` for what is no literal."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for name, call in _calls(path):
            if name == "say":
                template = _literal(call.args[0])
                place = f"{path.relative_to(ROOT)}:{call.lineno}"
                found.setdefault(f"? {place}" if template is None else template, place)
    return found


@functools.cache
def counted() -> dict[str, str]:
    """Return every noun given to ``count``, with where."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for name, call in _calls(path):
            if name == "count" and len(call.args) > 1 and (noun := _literal(call.args[1])):
                found.setdefault(noun, f"{path.relative_to(ROOT)}:{call.lineno}")
    return found


#: where each constructor takes what is shown, by position and by name
SHOWN = {
    "found": (1, "message"),
    "Heading": (0, "text"),
    "Paragraph": (0, "text"),
    "Column": (1, "title"),
    "Table": (2, "title"),
}


def bare() -> list[str]:
    """Return the places where a literal with words in it is shown without being said."""
    places = []
    for path in sorted(ROOT.rglob("*.py")):
        for name, call in _calls(path):
            if name in SHOWN and _speaks(_argument(call, *SHOWN[name])):
                places.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    return places


def _argument(call: ast.Call, position: int, keyword: str) -> ast.expr | None:
    if len(call.args) > position:
        return call.args[position]
    return next((one.value for one in call.keywords if one.arg == keyword), None)


def _speaks(node: ast.expr | None) -> bool:
    """Return whether a literal, or the literal part of an f-string, holds a letter."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and any(char.isalpha() for char in node.value)
    if isinstance(node, ast.JoinedStr):
        return any(_speaks(part) for part in node.values)
    if isinstance(node, ast.IfExp):
        return _speaks(node.body) or _speaks(node.orelse)
    return False
