"""What a conservation law is made of: units, their ends, and how two ends are laid side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ckptools.layouts.parameters.values import Floats

Shape = tuple[int, ...]

#: A relation holds up to this residual...
HOLDS = 0.3
#: ... and proves a state when other states give this many times more.
MARGIN = 2.0
#: The largest residual at which a relation without siblings is believed.
ALONE = 0.15
#: Residual above which a relation is plainly broken.
BROKEN = 0.5
#: Relations between shorter vectors say nothing.
SHORTEST = 8
#: Neighbours on each side among which related modules are looked for.
WINDOW = 8
#: Head sizes tried for rotary and grouped attention.
_HEADS = (4, 8, 16, 32, 64, 80, 96, 128)
#: Modules whose weight is stored inputs first.
_TRANSPOSED = re.compile(r"(?:c_attn|c_proj|c_fc|embed\w*|wte|emb|embedding)\.weight$")


@dataclass(frozen=True, slots=True)
class Unit:
    """A weight with its bias, as candidate positions.

    Attributes
    ----------
    vector: whether the weight is a vector (a norm's gain).
    transposed: whether its rows are inputs.
    kind: its name with numbers removed: alike for siblings.
    """

    weight: int
    bias: int | None
    vector: bool
    transposed: bool
    kind: str


class Fold(NamedTuple):
    """How a vector is summed: over groups of heads, then over rotary pairs of channels.

    Attributes
    ----------
    group: heads that share one of the other side's; 1 for none.
    head: size of a head; 0 where nothing is folded.
    rotary: "", "half" (channel i with i + head/2) or "pairs" (2i with 2i + 1).
    """

    group: int = 1
    head: int = 0
    rotary: str = ""

    @property
    def multiple(self) -> int:
        """The length of which a vector must be a multiple to be folded."""
        return self.group * max(self.head, 1)


class Part(NamedTuple):
    """One vector in a relation: which unit, which end of it, how folded."""

    unit: int
    end: str
    fold: Fold = Fold()


@dataclass(frozen=True, slots=True)
class Relation:
    """Vectors that balance: the sum of ``left`` is that of ``right`` (nothing: it vanishes).

    Attributes
    ----------
    residual: ‖left − right‖/(‖left‖ + ‖right‖).
    length: of the vectors.
    """

    left: tuple[Part, ...]
    right: tuple[Part, ...]
    residual: float
    length: int

    @property
    def parts(self) -> tuple[Part, ...]:
        """Both sides."""
        return self.left + self.right


def units(names: Sequence[str], shapes: Sequence[Shape]) -> list[Unit]:
    """Return the weights with their biases, in the order of the names; scalars are left out."""
    at = {name: index for index, name in enumerate(names)}
    biases = {}
    for index, name in enumerate(names):
        parent, dot, last = name.rpartition(".")
        if "weight" in last:
            other = at.get(parent + dot + last.replace("weight", "bias"))
            if other is not None and len(shapes[other]) == 1:
                biases[index] = other
    taken = set(biases.values())
    return [
        _unit(index, biases.get(index), names[index], shapes[index])
        for index in range(len(names))
        if index not in taken and shapes[index]
    ]


def _unit(index: int, bias: int | None, name: str, shape: Shape) -> Unit:
    matrix = len(shape) >= 2
    transposed = matrix and _TRANSPOSED.search(name) is not None
    return Unit(index, bias, not matrix, transposed, numberless(name))


def numberless(name: str) -> str:
    """Return a name with its numbers removed: alike for siblings."""
    return re.sub(r"\d+", "#", name)


def folds(first: int, second: int, *, rotary: bool) -> list[tuple[Fold, Fold]]:
    """Return the ways to fold two vectors to one length.

    Equal lengths as they are; then pairs of rotary channels; one length a multiple of the other:
    summed over groups of heads.
    """
    large, small = max(first, second), min(first, second)
    if small < SHORTEST or large % small or large // small > 16:
        return []
    group = large // small
    ways: list[tuple[Fold, Fold]] = [(Fold(), Fold())] if group == 1 else []
    for head in _HEADS:
        if small % head or small // 2 < SHORTEST:
            continue
        for kind in ("", "half", "pairs") if rotary else ("",):
            if group > 1 or kind:
                shared, alone = Fold(group, head, kind), Fold(1, head, kind)
                ways.append((shared, alone) if first >= second else (alone, shared))
    return ways


def folded(vector: Floats, fold: Fold) -> Floats:
    """Return a vector summed over groups of heads and over pairs of rotary channels."""
    if fold.group > 1:
        vector = vector.reshape(-1, fold.group, fold.head).sum(1).reshape(-1)
    if fold.rotary == "half":
        return np.asarray(vector.reshape(-1, 2, fold.head // 2).sum(1).reshape(-1))
    if fold.rotary == "pairs":
        return np.asarray(vector.reshape(-1, 2).sum(1))
    return vector


def residual(x: Floats, y: Floats, limit: int) -> float | None:
    """Return ‖x − y‖/(‖x‖ + ‖y‖), or None where it says nothing.

    The larger one of the vectors as they are and without their means: a common sign (of weight
    decay, say) must not pass for a balance.  Samples of different lengths are compared over the
    first ``limit`` elements, which both hold.
    """
    if x.size != y.size:
        size = min(x.size, y.size, limit)
        x, y = x[:size], y[:size]
    if x.size < SHORTEST:
        return None
    plain = _distance(x, y)
    if plain is None or plain >= HOLDS:
        return plain
    centred = _distance(x - x.mean(), y - y.mean())
    return None if centred is None else max(plain, centred)


def _distance(x: Floats, y: Floats) -> float | None:
    total = math.sqrt(float(np.dot(x, x))) + math.sqrt(float(np.dot(y, y)))
    if not 0 < total < math.inf:
        return None
    apart = x - y
    return math.sqrt(float(np.dot(apart, apart))) / total
