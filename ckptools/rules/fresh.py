"""Which weights look as they were initialised, and which sets were hardly trained at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ckptools.rules.slots import SQUARES, measured_slots
from ckptools.rules.weights import Measured, parameters, suffix, whole_places
from ckptools.types.checkpoint import NamedTensor, RunState
from ckptools.types.evidence import Evidence

#: Smaller tensors are compatible with too much.
LEAST_ELEMENTS = 1024
#: A spread that is known to two or three percent meets one of many normal initialisers by chance.
_LEAST_NORMAL = 8192
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


def is_start(run: RunState) -> bool:
    """Return whether the file says itself that training had not begun, or hardly."""
    return 0 in (run.step, run.epoch)


def judged_by_set(evidence: Evidence) -> dict[str, list[Measured]]:
    """Return the matrices of which it can be told whether they are fresh, by weight set."""
    sets: dict[str, list[Measured]] = {}
    for hit in parameters(evidence):
        if is_judged(hit):
            sets.setdefault(hit[0].set, []).append(hit)
    return sets


def fresh_sets(evidence: Evidence) -> set[str]:
    """Return the weight sets of which at least half of the matrices look as initialised."""
    return {
        name
        for name, judged in judged_by_set(evidence).items()
        if 2 * sum(bool(statistics.initializers) for _, statistics in judged) >= len(judged)
    }


def fresh_matrices(evidence: Evidence, judged: Sequence[Measured]) -> list[Measured]:
    """Return those of ``judged`` that look as initialised, when each is asked by itself.

    No trained matrix is uniform between sharp bounds.  But many are nearly normal, have by chance
    the spread of one of the normal initialisers, or keep it while they move a little: a normal one
    counts only if it is large, in a stack whose other blocks look different, and beside a bias
    that is fresh, too.
    """
    roles = [(tensor.set, tensor.stack, suffix(tensor)) for tensor, _ in judged]
    number = Counter(roles)
    alike = Counter(role for role, hit in zip(roles, judged, strict=True) if hit[1].initializers)
    fresh = []
    for role, hit in zip(roles, judged, strict=True):
        names = hit[1].initializers or ()
        alone = role[1] is not None and 2 * alike[role] < number[role]
        uniform = any("uniform" in name for name in names)
        large = hit[1].numel >= _LEAST_NORMAL
        if uniform or (names and alone and large and _bias_may_be_fresh(evidence, hit[0])):
            fresh.append(hit)
    return fresh


def _bias_may_be_fresh(evidence: Evidence, tensor: NamedTensor) -> bool:
    """Return whether there is no bias beside a weight that looks trained."""
    assert evidence.measurements is not None
    name = f"{tensor.name.removesuffix('weight')}bias"
    statistics = evidence.measurements.tensors.get((tensor.set, name))
    return statistics is None or statistics.initializers != ()


def fresh_places(evidence: Evidence, judged: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Return the fresh ones of ``judged``, which are of one set, by the largest fresh place.

    A place with any tensor in it that no initialiser explains, however small, was trained.
    """
    fresh = fresh_matrices(evidence, judged)
    keys = {(tensor.set, tensor.name) for tensor, _ in fresh}
    known = [
        tensor
        for tensor, statistics in parameters(evidence)
        if (tensor.set, tensor.name) in keys or statistics.initializers == ()
    ]
    places: dict[str, list[Measured]] = {}
    for place, hit in whole_places(known, fresh):
        places.setdefault(place, []).append(hit)
    return places


def stateless(evidence: Evidence) -> set[str]:
    """Return the names of the parameters that an optimizer knows and has no state for.

    Empty where it has none for anything: a fresh optimizer, or one without memory.
    """
    checkpoint = evidence.checkpoint
    names: set[str] = set()
    for optimizer in checkpoint.optimizers if checkpoint is not None else ():
        if any(state.has_state for state in optimizer.states):
            names.update(s.name for s in optimizer.states if s.name and not s.has_state)
    return names


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
