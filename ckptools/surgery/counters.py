"""Counters and settings of a saved run, found where the frameworks keep them, and set anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptools.layouts.run_state import NESTED
from ckptools.layouts.scalars import number
from ckptools.surgery import places, values
from ckptools.surgery.edits import Edits, in_pickle
from ckptools.types.tensor import FLOATING, TensorRef
from ckptools.types.tree import entries, unwrap


def counters(root: Any, names: tuple[str, ...]) -> Iterator[tuple[Any, str, str]]:
    """Yield (mapping node, key, path) of the counters of these names, as far down as is usual."""
    for key, node in entries(root) or []:
        if not isinstance(key, str):
            continue
        if key.lower() in names and _counts(node):
            yield root, key, key
        elif key in NESTED:
            for name, inner in entries(node) or []:
                if isinstance(name, str) and name.lower() in names and _counts(inner):
                    yield node, name, f"{key}.{name}"


def _counts(node: Any) -> bool:
    value = number(node)
    return value is not None and not isinstance(value, bool)


def put(edits: Edits, mapping: Any, key: str, value: float) -> str:
    """Give a number under ``key`` another value of the same kind; return "old -> new"."""
    node = places.child(edits.current(mapping), key)
    old = unwrap(node)
    before = number(node)
    if isinstance(old, TensorRef) and not in_pickle(old):
        edits.replace_values(old, values.constant(old, value))
        return f"{_short(before)} → {_short(value)}"
    counts = old.dtype not in FLOATING if isinstance(old, TensorRef) else isinstance(old, int)
    new: float = int(value) if counts and float(value).is_integer() else float(value)
    edits.set_item(mapping, key, new)
    return f"{_short(before)} → {_short(new)}"


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.10g}"


def scale_numbers(edits: Edits, mapping: Any, key: str, factor: float) -> bool:
    """Multiply a number, or every number of a list, by ``factor``; return whether there was one."""
    try:
        value = unwrap(places.child(edits.current(mapping), key))
    except KeyError:
        return False
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        edits.set_item(mapping, key, float(value) * factor)
        return True
    if isinstance(value, (list, tuple)) and value and all(map(_plain, value)):
        edits.set_item(mapping, key, type(value)(float(one) * factor for one in value))
        return True
    return False


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
