"""Give tensors other names, in weights and optimizer."""

from __future__ import annotations

import re

from ckptools.errors import InvalidParameter, NoSuchTensor
from ckptools.names import patterns
from ckptools.names.prefixes import without_wrappers
from ckptools.surgery import renaming
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import SET, Option, operation, weight_set
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.plan import TensorChange
from ckptools.types.wording import join, say


@operation(
    "rename",
    module=Option("A name (with everything under it), or re:REGEX.", required=True),
    to=Option(
        "What it is called instead; with re: it may hold \\1.  Empty takes the words away.",
        required=True,
    ),
    set=SET,
)
def rename(checkpoint: Checkpoint, *, module: str, to: str, set: str | None = None) -> Edits:
    r"""Give tensors other names, in weights and optimizer.

    ``--module decoder --to head.decoder`` moves everything under ``decoder.``;
    ``--module 're:^encoder\.(\d+)\.' --to 'encoder.layers.\1.'`` rewrites every name in which
    the expression is found.  Wrapper prefixes stay as they are.
    """
    tensors = weight_set(checkpoint, set)
    if not module.startswith("re:"):
        module, to = without_wrappers(module), without_wrappers(to)
    names = _renamed([tensor.name for tensor in tensors], module, to)
    changed = [tensor for tensor in tensors if tensor.name in names]
    sets = renaming.likewise(checkpoint, changed)
    edits = Edits()
    renaming.rename(checkpoint, edits, names, sets)
    edits.changes += [TensorChange(old, "rename", new) for old, new in names.items()]
    if len(sets) > 1:
        edits.notes.append(say("The same was done in {sets}.", sets=join(one.name for one in sets)))
    return edits


def _renamed(names: list[str], pattern: str, to: str) -> dict[str, str | None]:
    """Return the new names of those that change."""
    new: dict[str, str | None] = {}
    for name in names:
        other = _substituted(name, pattern, to)
        if other != name:
            new[name] = other
    empty = [old for old, name in new.items() if not name or name.startswith(".") or ".." in name]
    if empty:
        raise InvalidParameter("would leave a name with an empty word", where=empty[0])
    if not new:
        near = patterns.nearest(pattern, names)
        advice = f"nearest: {', '.join(near)}" if near else None
        raise NoSuchTensor(f"nothing is called {pattern!r}", where=pattern, next=advice)
    return new


def _substituted(name: str, pattern: str, to: str) -> str:
    if pattern.startswith("re:"):
        try:
            return re.sub(pattern[3:], to, name)
        except (re.error, IndexError) as error:
            raise InvalidParameter(f"{pattern!r} with {to!r}: {error}", where=pattern) from None
    if name == pattern:
        return to
    if name.startswith(f"{pattern}."):
        return f"{to}{name[len(pattern) :]}" if to else name[len(pattern) + 1 :]
    return name
