"""Saved learning-rate schedulers: what in them follows when a learning rate is assigned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ckptools.layouts.run_state import NESTED, helper_kind
from ckptools.surgery.edits import Edits
from ckptools.types.tree import entries, unwrap

#: one number for each group
BY_GROUP = ("base_lrs", "_last_lr", "max_lrs", "min_lrs")
#: one number for all groups
SHARED = ("eta_min",)
#: entries of a parameter group that a schedule starts from
OF_GROUP = ("initial_lr", "max_lr", "min_lr")


def schedulers(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, state dict) of every scheduler, those inside of sequential ones included."""
    todo: list[tuple[str, Any]] = []
    for key, node in entries(root) or []:
        if isinstance(key, str) and helper_kind(key, node) == "scheduler":
            todo.append((key, unwrap(node)))
        elif key in NESTED:
            todo += [
                (f"{key}.{name}", unwrap(inner))
                for name, inner in entries(node) or []
                if isinstance(name, str) and helper_kind(name, inner) == "scheduler"
            ]
    seen: set[int] = set()
    while todo:
        path, node = todo.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, list):
            todo += [(f"{path}.{index}", unwrap(one)) for index, one in enumerate(node)]
            continue
        held = entries(node)
        if held is not None:
            yield path, node
            todo += [(f"{path}.{key}", unwrap(one)) for key, one in held if key == "_schedulers"]


def scale(edits: Edits, node: Any, factors: Sequence[float]) -> list[str]:
    """Multiply the rates of a scheduler, group by group; return the keys that changed.

    What counts for all groups changes only when all factors are one.
    """
    changed = []
    for key, value in entries(edits.current(node)) or []:
        listed = unwrap(value)
        if key in BY_GROUP and isinstance(listed, list) and len(listed) == len(factors):
            if all(isinstance(one, (int, float)) for one in listed):
                new = [one * factor for one, factor in zip(listed, factors, strict=True)]
                edits.set_item(node, key, new)
                changed.append(str(key))
        elif key in SHARED and isinstance(listed, float) and len(set(factors)) == 1:
            edits.set_item(node, key, listed * factors[0])
            changed.append(str(key))
    return changed
