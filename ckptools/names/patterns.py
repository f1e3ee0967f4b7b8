"""Name patterns, as ``--module`` takes them.

A plain name means itself and everything under ``NAME.``; ``*``, ``?``, ``[]`` make it a glob, and
``re:`` a regular expression.  All three match whole segments, so ``layers.1`` never selects
``layers.10``.  A pattern is matched from the start of the names, else below one unique place.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable

from ckptools.errors import InvalidParameter, NoSuchTensor
from ckptools.names.prefixes import without_wrappers

#: How many names an error message lists.
LISTED = 5
#: Among more names than this, only those that share a word with the pattern are compared.
_COMPARED = 4000


def select(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that ``pattern`` selects, in their order.

    Raises
    ------
    NoSuchTensor: nothing matches (the nearest names are given), or the pattern is not anchored and
        several places match (they are given).
    InvalidParameter: it is no regular expression.
    """
    names = list(names)
    matcher = _compiled(pattern)
    chosen = [name for name in names if matcher.fullmatch(name)]
    chosen = chosen or _below_one_place(pattern, matcher, names)
    if chosen:
        return chosen
    unwrapped = pattern if pattern.startswith("re:") else without_wrappers(pattern)
    if unwrapped != pattern:
        return select(unwrapped, names)
    raise NoSuchTensor(
        f"nothing is called {pattern!r}", where=pattern, next=_advice(nearest(pattern, names))
    )


def nearest(pattern: str, names: Iterable[str], count: int = LISTED) -> list[str]:
    """Return the names of modules and tensors that look most like ``pattern``, best first."""
    wanted = pattern.removeprefix("re:").lower()
    length = wanted.count(".") + 1
    scored: dict[str, float] = {}
    compare = difflib.SequenceMatcher(autojunk=False)
    compare.set_seq2(wanted)
    for name in _worth_comparing(wanted, _with_modules(names)):
        tail = ".".join(name.lower().split(".")[-length:])
        compare.set_seq1(tail)
        if compare.real_quick_ratio() > 0.5 and compare.quick_ratio() > 0.5:
            scored[name] = compare.ratio()
    likely = [name for name, score in scored.items() if score > 0.6]
    return sorted(likely, key=lambda name: (-scored[name], len(name), name))[:count]


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return an expression that a selected name matches as a whole."""
    if pattern.startswith("re:"):
        text = pattern[3:]
    elif any(character in pattern for character in "*?["):
        text = fnmatch.translate(pattern.rstrip(".")).removesuffix(r"\Z").removesuffix(r"\z")
    else:
        text = re.escape(pattern.rstrip("."))
    try:
        return re.compile(rf"(?:{text})(?:\..*)?", re.DOTALL)
    except re.error as error:
        raise InvalidParameter(
            f"{pattern!r} is no regular expression: {error}", where=pattern
        ) from error


def _below_one_place(pattern: str, matcher: re.Pattern[str], names: list[str]) -> list[str]:
    """Return what the pattern selects when exactly one place is put before it."""
    found: dict[str, list[str]] = {}
    for name in names:
        start = name.find(".") + 1
        while start:
            if matcher.fullmatch(name, start):
                found.setdefault(name[:start], []).append(name)
            start = name.find(".", start) + 1
    if len(found) > 1:
        raise NoSuchTensor(
            f"{pattern!r} could mean {len(found)} places",
            where=pattern,
            next=_advice([_placed(pattern, place) for place in found][:LISTED], "write one of"),
        )
    return next(iter(found.values()), [])


def _placed(pattern: str, place: str) -> str:
    """Return the pattern that means the same below ``place`` only."""
    if pattern.startswith("re:"):
        return f"re:{re.escape(place)}(?:{pattern[3:]})"
    return place + pattern


def _with_modules(names: Iterable[str]) -> list[str]:
    """Return every name and every module above it, once."""
    seen: dict[str, None] = {}
    for name in names:
        end = name.find(".")
        while end >= 0:
            seen[name[:end]] = None
            end = name.find(".", end + 1)
        seen[name] = None
    return list(seen)


def _worth_comparing(wanted: str, names: list[str]) -> list[str]:
    if len(names) <= _COMPARED:
        return names
    words = [word for word in re.split(r"[^a-z]+", wanted) if len(word) > 2]
    shared = [name for name in names if any(word in name.lower() for word in words)]
    return (shared or names)[:_COMPARED]


def _advice(names: list[str], lead: str = "nearest:") -> str | None:
    return f"{lead} {', '.join(names)}" if names else None
