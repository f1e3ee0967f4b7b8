"""NUM110: a running variance that no batches leave behind."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import Measured, Targets, gathered, listed, measured
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.measurements import Statistics
from ckptools.types.tensor import FLOATING
from ckptools.types.wording import say

_VARIANCE, _COUNTER = "running_var", "num_batches_tracked"
#: torch's default momentum, which files do not hold.
_MOMENTUM = 0.1


@rule(
    "NUM110",
    "impossible-variance",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "measurements"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """A BatchNorm layer's running variance is negative, or fell faster than its momentum allows.

    What it means
        A running mean of variances is never below zero. From its initial one it cannot fall
        faster than (1 - momentum) a batch, so after a few counted batches it is not near zero.

    Why it matters
        The layer divides by the root of it: negative makes NaN, a tiny one an explosion.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). None for negative
        values. The second statement assumes torch's momentum of .1 and an initial value of one: it
        is a hint and says so.

    What to do
        Recompute the statistics by a pass over training data in training mode, or take them from
        an earlier file.

    References
        Ioffe & Szegedy 2015, algorithm 2; derivation in compare/bounds/batchnorm.py.
    """
    assert evidence.checkpoint is not None
    known = {(tensor.set, tensor.name): one for tensor, one in measured(evidence)}
    variances = [
        hit
        for hit in measured(evidence)
        if hit[0].name.endswith(_VARIANCE) and hit[0].ref.dtype in FLOATING
    ]
    negative = [hit for hit in variances if (hit[1].min or 0.0) < 0]
    for group in gathered(evidence.checkpoint, negative):
        lowest = min(one.min or 0.0 for _, one in group.hits)
        yield found(
            group.target,
            say(
                "running_var goes down to {lowest:.3g}; it is a mean of variances",
                lowest=lowest,
            ),
            evidence={"min": lowest, "tensors": group.names()[:100]},
            limit=0.0,
            advice=advice.restore(evidence, group.pattern),
        )
    fallen = [hit for hit in variances if hit not in negative and _too_low(hit, known)]
    if fallen:
        targets = Targets(evidence.checkpoint)
        yield found(
            targets.tensor(fallen[0][0]),
            say(
                "running_var goes down to {lowest:.3g}, further than momentum {momentum} lets it "
                "fall from 1 in the batches counted ({names}; momentum and initial value are "
                "assumed)",
                lowest=min(one.min or 0.0 for _, one in fallen),
                momentum=_MOMENTUM,
                names=listed([tensor.name for tensor, _ in fallen]),
            ),
            evidence={"tensors": [tensor.name for tensor, _ in fallen][:100]},
            confidence="hint",
            advice=advice.restore(evidence, fallen[0][0].module or None),
        )


def _too_low(hit: Measured, known: dict[tuple[str, str], Statistics]) -> bool:
    """Return whether a variance is below what its counter allows."""
    tensor, one = hit
    counter = known.get((tensor.set, tensor.name.removesuffix(_VARIANCE) + _COUNTER))
    batches = counter.min if counter is not None else None
    if one.min is None or batches is None or not 0 <= batches < 1 << 40:
        return False
    from ckptools.compare.bounds.batchnorm import lowest_breaks  # numpy

    return lowest_breaks(one.min, int(batches), _MOMENTUM, tensor.ref.dtype)
