"""Which weights look as they were initialised, and which sets were hardly trained at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ckptools.rules.slots import SQUARES, measured_slots
from ckptools.rules.weights import Measured, parameters, suffix
from ckptools.types.evidence import Evidence

#: Smaller tensors are compatible with too much.
LEAST_ELEMENTS = 256
#: Roles whose fresh state says nothing about training: rarely touched, or frozen on purpose.
_UNTOLD = frozenset({"embedding", "lora", "norm", "position", "query", "scale"})


def is_judged(hit: Measured) -> bool:
    """Return whether it can be told of a tensor that it is as it was initialised.

    A matrix of some size, not constant (zero and one are where many tensors stay), of a role that
    training moves, for which some initialiser is known.
    """
    tensor, statistics = hit
    return (
        len(tensor.ref.shape) >= 2
        and statistics.numel >= LEAST_ELEMENTS
        and statistics.initializers is not None
        and not statistics.constant
        and tensor.role not in _UNTOLD
    )


def fresh_sets(evidence: Evidence) -> set[str]:
    """Return the weight sets of which at least half of the matrices look as initialised."""
    judged: Counter[str] = Counter()
    fresh: Counter[str] = Counter()
    for hit in parameters(evidence):
        if is_judged(hit):
            judged[hit[0].set] += 1
            fresh[hit[0].set] += bool(hit[1].initializers)
    return {name for name, number in fresh.items() if 2 * number >= judged[name] > 0}


def fresh_matrices(judged: Sequence[Measured]) -> list[Measured]:
    """Return those of ``judged`` that look as initialised, when each is asked by itself.

    No trained matrix is uniform between sharp bounds, but many are nearly normal, and some have by
    chance the spread of one of the normal initialisers: a normal one counts only in a stack whose
    other blocks do not look fresh in the same place.
    """
    roles = [(tensor.set, tensor.stack, suffix(tensor)) for tensor, _ in judged]
    number = Counter(roles)
    fresh = Counter(role for role, hit in zip(roles, judged, strict=True) if hit[1].initializers)
    return [
        hit
        for role, hit in zip(roles, judged, strict=True)
        if any("uniform" in name for name in hit[1].initializers or ())
        or (hit[1].initializers and role[1] is not None and 2 * fresh[role] < number[role])
    ]


def stepped(evidence: Evidence) -> set[str]:
    """Return the names of the parameters of which the optimizer remembers a gradient."""
    return {
        slot.state.name
        for slot in measured_slots(evidence)
        if slot.state.name is not None
        and slot.state.standing in ("sure", "by_order")
        and slot.slot in SQUARES
        and (slot.statistics.max or 0.0) > 0.0
    }
