"""What the rules on tensors of a single value share: which of them should hold more.

Zero biases, unit gains and zero-initialised projections are normal before training, and some stay
so for ever.  A tensor of one value is out of place when most of its siblings in the other blocks
are not of one value, when the optimizer remembers gradients of it, or when no initialiser known
for it gives a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ckptools.rules.fresh import fresh_places, fresh_sets, judged_by_set, stepped
from ckptools.rules.weights import Gathered, Measured, gathered, lies_in, parameters, siblings
from ckptools.types.checkpoint import NamedTensor
from ckptools.types.evidence import Evidence
from ckptools.types.measurements import Statistics
from ckptools.types.wording import say

#: With fewer siblings than this there is no usual state.
_LEAST_SIBLINGS = 3


def out_of_place(
    evidence: Evidence, uniform: Callable[[Statistics], bool]
) -> Iterator[tuple[Gathered, str]]:
    """Iterate over uniform tensors that should not be, by place, each with the first's reason."""
    assert evidence.checkpoint is not None
    found = list(_out_of_place(evidence, uniform))
    reasons = {(tensor.set, tensor.name): reason for (tensor, _), reason in found}
    for group in gathered(evidence.checkpoint, [hit for hit, _ in found]):
        first = group.hits[0][0]
        yield group, reasons[first.set, first.name]


def _out_of_place(
    evidence: Evidence, uniform: Callable[[Statistics], bool]
) -> Iterator[tuple[Measured, str]]:
    """Iterate over the uniform tensors that should not be, each with the reason."""
    hits = [hit for hit in parameters(evidence) if hit[1].numel > 1 and uniform(hit[1])]
    if not hits:
        return
    fresh, moved = fresh_sets(evidence), stepped(evidence)
    untrained = _untrained(evidence)
    shares = _shares(evidence, uniform)
    for tensor, statistics in hits:
        if tensor.set in fresh or tensor.role == "lora":
            continue
        if statistics.initializers and lies_in(tensor, untrained):
            continue  # as fresh as the matrices around it, of which SPR105 speaks
        share = shares.get((tensor.set, tensor.name))
        if share is not None and share < 0.5:
            yield (tensor, statistics), say("most of the other blocks have more there")
        elif tensor.name in moved and not _rounds_away(tensor, statistics):
            yield (tensor, statistics), say("the optimizer remembers gradients of it")
        elif share is None and len(tensor.ref.shape) > 1 and not statistics.initializers:
            yield (tensor, statistics), say("nothing is known to start like this")


def _rounds_away(tensor: NamedTensor, statistics: Statistics) -> bool:
    """Return whether updates may be lost on it: 16-bit values at their start, gains of 1 say."""
    return tensor.ref.dtype in ("bfloat16", "float16") and bool(statistics.initializers)


def _untrained(evidence: Evidence) -> set[tuple[str, str]]:
    """Return the places, as (set, place), whose matrices look as initialised.

    Around a single matrix it is the layer that the matrix belongs to.
    """
    return {
        (name, place.rpartition(".")[0] if place == hits[0][0].name else place)
        for name, judged in judged_by_set(evidence).items()
        for place, hits in fresh_places(evidence, judged).items()
    }


def _shares(
    evidence: Evidence, uniform: Callable[[Statistics], bool]
) -> dict[tuple[str, str], float]:
    """Return the share of uniform tensors among all siblings of a role, by (set, name)."""
    assert evidence.checkpoint is not None
    assert evidence.measurements is not None
    measures = evidence.measurements.tensors
    shares: dict[tuple[str, str], float] = {}
    for group in siblings(evidence.checkpoint, at_least=_LEAST_SIBLINGS):
        keys = [(group.set, tensor.name) for tensor in group.members.values()]
        known = [key for key in keys if key in measures]
        number = sum(uniform(measures[key]) for key in known)
        shares.update(dict.fromkeys(known, number / max(len(known), 1)))
    return shares
