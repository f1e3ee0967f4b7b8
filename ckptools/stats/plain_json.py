"""Values of a checkpoint as JSON and back, losing neither tuples nor non-finite numbers.

What JSON lacks is written as an object with one key that begins with ``$``.  Nothing is ever
imported or called on the way back.
"""

from __future__ import annotations

import math
from typing import Any

from ckptools.types.tree import class_name, unwrap

#: containers nested deeper than this become a remark
DEPTH = 24
_INTEGER = 1 << 63


def encode(value: Any, depth: int = DEPTH) -> Any:
    """Return ``value`` as what the json module writes; unknown objects become their name."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if -_INTEGER <= value < _INTEGER else {"$int": hex(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if depth <= 0:
        return {"$object": "..."}
    if isinstance(value, list):
        return [encode(item, depth - 1) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [encode(item, depth - 1) for item in value]}
    if isinstance(value, dict):
        pairs = [[encode(k, depth - 1), encode(v, depth - 1)] for k, v in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {"$pairs": pairs}
    return {"$object": class_name(value) or type(unwrap(value)).__name__}


def decode(value: Any) -> Any:
    """Return what :func:`encode` was given; objects become their name in angle brackets.

    Raises
    ------
    ValueError: an object with a ``$`` key that :func:`encode` does not write.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key.startswith("$"):
            return _special(key, inner)
    return {key: decode(inner) for key, inner in value.items()}


def _special(key: str, inner: Any) -> Any:
    if key == "$tuple":
        return tuple(decode(item) for item in inner)
    if key == "$pairs":
        return {decode(k): decode(v) for k, v in inner}
    if key == "$float":
        return float(inner)
    if key == "$int":
        return int(inner, 16)
    if key == "$object":
        return f"<{inner}>"
    raise ValueError(f"unknown kind of value {key!r}")
