"""Adding up the globals of several pickles."""

from __future__ import annotations

from collections.abc import Iterable

from ckptools.formats.globals import DANGEROUS, KNOWN, UNKNOWN
from ckptools.types.container import GlobalUse
from ckptools.types.wording import join, say

_ORDER = (KNOWN, UNKNOWN, DANGEROUS)


def merged(uses: Iterable[GlobalUse]) -> tuple[GlobalUse, ...]:
    """Return one use per name, in order of first use: counts added, the worst grade kept."""
    found: dict[str, GlobalUse] = {}
    for use in uses:
        before = found.get(use.name, GlobalUse(use.name, use.grade, 0))
        grade = max(before.grade, use.grade, key=_ORDER.index)
        found[use.name] = GlobalUse(use.name, grade, before.count + use.count)
    return tuple(found.values())


def dangerous_names(uses: Iterable[GlobalUse]) -> str:
    """Return the end of a sentence that names what is dangerous, empty when nothing is."""
    names = [use.name for use in merged(uses) if use.grade == DANGEROUS]
    return (
        say("; it names {names}", names=join(ascii(name)[:80] for name in names[:5]))
        if names
        else ""
    )
