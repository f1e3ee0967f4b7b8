"""Averages of weights that lie in the same state dict as the weights they follow.

A module that keeps an average of its parameters beside them (an EMA of a diffusion model, a
teacher) saves both under one roof.  They are two weight sets: one is trained, the other follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

#: What the outermost child that holds an average is called.
_AVERAGE = re.compile(r"(?:.*_)?(?:ema|swa|averaged?|teacher)(?:_.*)?", re.IGNORECASE)
_HINT = re.compile(r"ema|swa|average|teacher", re.IGNORECASE)
_LONGEST = 64
#: Of its tensors so many must follow some weight of the same name (counters follow none).
_SHARE = 0.5


def may_hold_averages(keys: Iterable[str]) -> bool:
    """Return whether a look at the keys is worth it; most files hold none, and listing is quick."""
    return any(_HINT.search(key) for key in keys)


def averages(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the averages among tensor names: by the child that holds it, whose weight each is of.

    A name inside an average is mapped to the name of the weight that it follows, or to itself
    where it follows none.  Latent diffusion saves names without their dots; they are found, too.
    """
    inside: dict[str, list[str]] = {}
    outside: list[str] = []
    for name in names:
        child, dot, _ = name.partition(".")
        if dot and len(child) <= _LONGEST and _AVERAGE.fullmatch(child):
            inside.setdefault(child, []).append(name)
        else:
            outside.append(name)
    if not inside:
        return {}
    found = {}
    for child, members in inside.items():
        followed = _followed(members, child, outside)
        if len(followed) >= _SHARE * len(members):
            found[child] = {name: followed.get(name, name) for name in members}
    return found


def _followed(members: Iterable[str], child: str, outside: Iterable[str]) -> dict[str, str]:
    """Return the weight that each tensor of an average follows, by the spelling most agree on."""
    best: dict[str, str] = {}
    for spelled in _spellings(list(outside)):
        hits = {
            name: spelled[rest] for name in members if (rest := name[len(child) + 1 :]) in spelled
        }
        if len(hits) > len(best) and len(set(hits.values())) == len(hits):
            best = hits
    return best


def _spellings(names: list[str]) -> Iterable[Mapping[str, str]]:
    """Yield what an average may call the weights: as they are, without their own outermost child,
    and either without dots.
    """
    below = {rest: name for name in names if (rest := name.partition(".")[2])}
    whole = {name: name for name in names}
    yield from (whole, below)
    yield from ({key.replace(".", ""): name for key, name in one.items()} for one in (whole, below))
