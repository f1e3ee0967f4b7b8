"""SPR104: the largest singular value is far outside the bulk."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.spread.rank_collapse import is_judged
from ckptools.rules.weights import Measured, gathered, parameters, siblings
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding

#: A matrix of a stack must also pass this multiple of its role's median.
_OVER_ROLE = 2.0


@rule(
    "SPR104",
    "spectral-edge",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements", "spectrum"),
    limit=2.5,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """The largest singular value of a block's matrix is far above what its size explains.

    What it means
        Spectral norm over std * (sqrt(rows) + sqrt(columns)), the edge that a random matrix of
        this size and spread would have, is above the limit and at least twice what the same role
        has in the other blocks of the stack.

    Why it matters
        One direction is amplified out of proportion: a learning-rate spell, a collapsed
        projection, or one damaged value.

    False alarms
        Not yet measured; hint. Trained matrices pass the edge by nature, large ones by far,
        so only a block that differs from its siblings is reported; matrices outside stacks, with
        a side below 16, embeddings, norms and LoRA stay silent.

    What to do
        Look whether one value stands out (NUM108); compare with an earlier checkpoint.

    References
        Marchenko & Pastur 1967; Bai & Yin 1993 (largest singular value of a random matrix).
    """
    assert evidence.checkpoint is not None
    usual = _usual(evidence)
    hits = [
        hit
        for hit in parameters(evidence)
        if (ratio := edge_ratio(hit)) is not None
        and ratio > limit
        and ratio > _OVER_ROLE * usual.get((hit[0].set, hit[0].name), float("inf"))
    ]
    for group in gathered(evidence.checkpoint, hits):
        largest = max(edge_ratio(hit) or 0.0 for hit in group.hits)
        yield found(
            group.target,
            f"spectral norm is {largest:.3g} times the edge of a random matrix of its size",
            evidence={"edge_ratio": largest, "tensors": len(group.hits)},
            limit=limit,
            advice=advice.restore(evidence, group.pattern),
        )


def edge_ratio(hit: Measured) -> float | None:
    """Return the edge ratio of a matrix that is judged, else None."""
    spectrum = hit[1].spectrum
    return spectrum.edge_ratio if spectrum is not None and is_judged(hit[0], spectrum) else None


def _usual(evidence: Evidence) -> dict[tuple[str, str], float]:
    """Return the median edge ratio of its role, by (set, name), for tensors in stacks."""
    assert evidence.checkpoint is not None
    ratios = {
        (tensor.set, tensor.name): ratio
        for tensor, statistics in parameters(evidence)
        if (ratio := edge_ratio((tensor, statistics))) is not None
    }
    usual: dict[tuple[str, str], float] = {}
    for group in siblings(evidence.checkpoint, at_least=3):
        keys = [(group.set, tensor.name) for tensor in group.members.values()]
        known = [ratios[key] for key in keys if key in ratios]
        if len(known) >= 3:
            usual.update(dict.fromkeys(keys, median(known)))
    return usual
