"""NUM105: weights that have decayed below the normal range of their dtype."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import count, gathered, parameters
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.measurements import Statistics
from ckptools.types.wording import say


@rule(
    "NUM105",
    "subnormal-share",
    severity="note",
    confidence="hint",
    needs=("checkpoint", "measurements"),
    limit=0.05,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A good part of a matrix is subnormal: almost, but not quite, zero.

    What it means
        More than the limit of the values that are not zero lie below the smallest normal number
        (6.1e-5 in float16, 1.2e-38 in float32 and bfloat16). They keep fewer and fewer digits.

    Why it matters
        In float16 the tensor is losing precision and should be kept in bfloat16 or float32. In
        float32 the weights have decayed to death: they get no gradient, only weight decay; or
        their exponents were damaged. Arithmetic on them is slow on many processors.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). Not yet measured;
        hint, and a note only. Vectors stay silent: the bias of an attention's keys gets no gradient
        but rounding errors.

    What to do
        Look at the quantiles; compare with an earlier checkpoint.

    References
        IEEE 754-2019, section 2.1.51 (subnormal numbers).
    """
    assert evidence.checkpoint is not None
    hits = [
        hit for hit in parameters(evidence) if len(hit[0].ref.shape) > 1 and share(hit[1]) > limit
    ]
    for group in gathered(evidence.checkpoint, hits, few=4):
        number = sum(statistics.subnormal for _, statistics in group.hits)
        most = max(share(statistics) for _, statistics in group.hits)
        yield found(
            group.target,
            say(
                "{values} below the normal range, {most:.0%} of the tensor{names}",
                values=count(number, "value"),
                most=most,
                names=group.among,
            ),
            evidence={"subnormal": number, "share": most, "tensors": len(group.hits)},
            limit=limit,
            advice=advice.inspect(evidence, "--sort", "subnormal"),
        )


def share(statistics: Statistics) -> float:
    """Return how many of the finite values that are not zero are subnormal."""
    return statistics.subnormal / max(statistics.finite - statistics.zeros, 1)
