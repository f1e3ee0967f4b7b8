"""SPR103: a matrix has lost its rank."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.spread.residuals import residuals
from ckptools.rules.weights import Measured, gathered, parameters
from ckptools.types.checkpoint import NamedTensor
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.measurements import Spectrum

#: Smaller matrices have too few singular values to lose.
_LEAST_SIDE = 16
#: Effective rank over the median of the same role, below which a block stands out.
_RATIO = 0.5


@rule(
    "SPR103",
    "rank-collapse",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements", "spectrum"),
    limit=0.1,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A matrix does almost all of its work in one direction.

    What it means
        The effective rank is below the limit's share of the smaller side, or less than half of
        what the same role has in the other blocks.

    Why it matters
        Whatever passes through the matrix comes out as multiples of one vector; queries that
        differ going in no longer differ coming out. Seen after learning-rate spells and in
        projectors whose training collapsed; a single flipped exponent bit looks like it, too.

    False alarms
        Not yet measured; hint. (A stable rank below 1.6, which tells healthy and sick apart in
        small transformers, is normal in convolutions and regression heads: 4 of 22 real files
        have one.) Matrices with a side below 16, embeddings, norms and LoRA stay silent, and so
        do large ones for which only the largest singular values were computed.

    What to do
        Look whether one value stands out (NUM108); compare with an earlier checkpoint.

    References
        Roy & Vetterli 2007 (effective rank); Rudelson & Vershynin 2007 (stable rank).
    """
    assert evidence.checkpoint is not None
    fallen = {
        (residual.tensor.set, residual.tensor.name)
        for residual in residuals(evidence.checkpoint, lambda t: _effective_rank(evidence, t))
        if residual.ratio < _RATIO and residual.score < -residual.least
    }
    hits = [
        (tensor, statistics)
        for tensor, statistics in parameters(evidence)
        if (spectrum := statistics.spectrum) is not None
        and is_judged(tensor, spectrum)
        and (share(spectrum) < limit or (tensor.set, tensor.name) in fallen)
    ]
    for group in gathered(evidence.checkpoint, hits):
        lowest = min((spectrum_of(hit) for hit in group.hits), key=share)
        side, effective = min(lowest.rows, lowest.columns), lowest.effective_rank
        yield found(
            group.target,
            f"effective rank {effective:.3g} of {side} (stable rank {lowest.stable_rank:.3g})",
            evidence={
                "stable_rank": lowest.stable_rank,
                "effective_rank": effective,
                "tensors": len(group.hits),
            },
            limit=limit,
            advice=advice.restore(evidence, group.pattern),
        )


def is_judged(tensor: NamedTensor, spectrum: Spectrum) -> bool:
    """Return whether the singular values of ``tensor`` say something about its health."""
    return min(spectrum.rows, spectrum.columns) >= _LEAST_SIDE and tensor.role not in (
        "embedding",
        "norm",
        "lora",
        "query",
    )


def share(spectrum: Spectrum) -> float:
    """Return the effective rank over the smaller side; infinite where it is not known."""
    if spectrum.effective_rank is None:
        return float("inf")
    return spectrum.effective_rank / min(spectrum.rows, spectrum.columns)


def spectrum_of(hit: Measured) -> Spectrum:
    """Return the spectrum of a tensor that is known to have one."""
    assert hit[1].spectrum is not None
    return hit[1].spectrum


def _effective_rank(evidence: Evidence, tensor: NamedTensor) -> float | None:
    assert evidence.measurements is not None
    statistics = evidence.measurements.tensors.get((tensor.set, tensor.name))
    spectrum = statistics.spectrum if statistics is not None else None
    judged = spectrum is not None and is_judged(tensor, spectrum)
    return spectrum.effective_rank if judged and spectrum is not None else None
