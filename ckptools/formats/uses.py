"""Adding up the globals of several pickles."""

from __future__ import annotations

from collections.abc import Iterable

from ckptools.types.container import GlobalUse

_GRADES = ("known", "unknown", "dangerous")


def merged(uses: Iterable[GlobalUse]) -> tuple[GlobalUse, ...]:
    """Return one use per name, in order of first use: counts added, the worst grade kept."""
    found: dict[str, GlobalUse] = {}
    for use in uses:
        before = found.get(use.name, GlobalUse(use.name, use.grade, 0))
        grade = max(before.grade, use.grade, key=_GRADES.index)
        found[use.name] = GlobalUse(use.name, grade, before.count + use.count)
    return tuple(found.values())
