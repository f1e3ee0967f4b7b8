"""NUM108: a value far above all others of its tensor."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import count, gathered, parameters
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.measurements import Statistics
from ckptools.types.wording import say

#: Empty powers of two between the largest values and the rest that are worth a word.
LIMIT = 6.0
#: Below so many values other than zero, a wide spread says nothing.
_LEAST = 64


@rule(
    "NUM108",
    "isolated-outlier",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements"),
    limit=LIMIT,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A few values lie binary orders of magnitude above everything else in their tensor.

    What it means
        Between the largest values and the rest, at least so many exponents are empty as the
        limit says. A flipped exponent bit looks like this: it multiplies one value by 2 to the
        power 1, 2, 4, ... 128.

    Why it matters
        A single value of 1e37 destroys every output; one that is 256 times too large often does
        no visible harm and shows that memory, disk or transfer change bits.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). Tensors with fewer
        than 64 values other than zero stay silent.

    What to do
        Verify the checksums; compare with the earlier checkpoint; restore the tensor.

    References
        Ma et al. 2025 (silent data corruption in training, arXiv 2502.12340).
    """
    assert evidence.checkpoint is not None
    hits = [hit for hit in parameters(evidence) if is_isolated(hit[1], limit)]
    for group in gathered(evidence.checkpoint, hits):
        gap = max(statistics.exponent_gap for _, statistics in group.hits)
        number = sum(statistics.isolated for _, statistics in group.hits)
        largest = max(statistics.abs_max or 0.0 for _, statistics in group.hits)
        yield found(
            group.target,
            say(
                "{values} up to {largest:.4g}, with {gap} empty powers of two between "
                "them and the rest",
                values=count(number, "value"),
                largest=largest,
                gap=gap,
            ),
            evidence={"exponent_gap": gap, "isolated": number, "abs_max": largest},
            limit=limit,
            advice=advice.inspect(evidence, "--verify"),
        )


def is_isolated(statistics: Statistics, limit: float = LIMIT) -> bool:
    """Return whether the largest values stand apart by ``limit`` powers of two or more."""
    return (
        statistics.exponent_gap >= limit
        and statistics.finite - statistics.zeros - statistics.isolated >= _LEAST
    )
