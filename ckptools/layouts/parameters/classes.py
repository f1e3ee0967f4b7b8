"""Ways in which programs divide their parameters into groups.

Every way gives each candidate a class; a group is a run of whole classes.  ``frozen`` classes are
those that no group takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ckptools.names.stacks import Place

Shape = tuple[int, ...]

_NORM = re.compile(r"(?:^|[._])(?:\w*norm\w*|ln_?\w{0,4}|bn\w{0,3}|gn\w{0,2})(?:[._]|$)", re.I)
_EMBEDDING = re.compile(
    r"(?:^|[._])(?:\w*embed\w*|wte|wpe|pos|position|cls_token|shared)(?:[._]|$)"
)
_LORA = re.compile(r"lora_([A-Za-z]+)")
_EXPERT = re.compile(r"expert")


@dataclass(frozen=True, slots=True)
class Division:
    """One way to divide the candidates.

    Attributes
    ----------
    name: what it is called in messages.
    classes: class by candidate position; classes are numbered by first appearance.
    price: how unusual it is.
    """

    name: str
    classes: tuple[int, ...]
    price: float


def divisions(
    names: Sequence[str], shapes: Sequence[Shape], places: Sequence[Place]
) -> list[Division]:
    """Return the divisions worth trying, each once, cheapest first."""
    decay: dict[str, Callable[[int], object]] = {
        "dimensions": lambda i: len(shapes[i]) < 2,
        "norms and biases": lambda i: _bias(names[i]) or _norm(names[i], shapes[i]),
        "biases": lambda i: _bias(names[i]),
        "norms": lambda i: _norm(names[i], shapes[i]) and not _bias(names[i]),
        "norms with biases": lambda i: _norm(names[i], shapes[i]),
        "all but linear weights": lambda i: (
            len(shapes[i]) < 2 or _EMBEDDING.search(names[i]) is not None
        ),
    }
    parts: dict[str, Callable[[int], object]] = {
        "top module": lambda i: names[i].split(".", 1)[0],
        "second module": lambda i: tuple(names[i].split(".", 2)[:2]),
        "block": lambda i: places[i].module,
        "block with the rest": lambda i: places[i].module if places[i].stack else None,
    }
    kinds: dict[str, Callable[[int], object]] = {
        "lora": lambda i: _LORA.search(names[i]) is not None,
        "lora A and B": lambda i: (_LORA.findall(names[i]) or [None])[-1],
        "embeddings": lambda i: _EMBEDDING.search(names[i]) is not None,
        "experts": lambda i: _EXPERT.search(names[i]) is not None,
        "last segment": lambda i: names[i].rpartition(".")[2],
        "module kind": lambda i: re.sub(r"\d+", "#", names[i]),
    }
    ways = [(name, 0.5, way) for name, way in decay.items()]
    ways += [(name, 1.0, way) for name, way in parts.items()]
    ways += [(name, 1.5, way) for name, way in kinds.items()]
    for first, outer in parts.items():
        for second, inner in decay.items():
            ways.append((f"{first} × {second}", 1.6, _both(outer, inner)))
    for second in ("lora", "embeddings"):
        ways.append((f"{second} × dimensions", 2.0, _both(kinds[second], decay["dimensions"])))
    return _distinct(ways, len(names))


def _both(
    first: Callable[[int], object], second: Callable[[int], object]
) -> Callable[[int], object]:
    return lambda i: (first(i), second(i))


def _distinct(ways: list[tuple[str, float, Callable[[int], object]]], count: int) -> list[Division]:
    """Return the divisions into at least two classes, each partition once."""
    found: dict[tuple[int, ...], Division] = {}
    for name, price, way in ways:
        numbers: dict[object, int] = {}
        classes = tuple(numbers.setdefault(way(i), len(numbers)) for i in range(count))
        if len(numbers) > 1:
            found.setdefault(classes, Division(name, classes, price))
    return list(found.values())


def _bias(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.startswith("bias") or last.endswith("bias") or "_bias_" in last


def _norm(name: str, shape: Shape) -> bool:
    parent = name.rpartition(".")[0]
    return _NORM.search(parent) is not None or (
        len(shape) == 1 and name.endswith("weight") and not _bias(name)
    )
