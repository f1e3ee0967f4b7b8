"""SPR101: the size of a weight is far from the same role in the other blocks."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.middle import median
from ckptools.rules.numbers.isolated_outlier import is_isolated
from ckptools.rules.registry import found, rule
from ckptools.rules.spread.residuals import Place, Residual, places, residuals
from ckptools.types.checkpoint import NamedTensor
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

#: A smaller factor than this is no anomaly, however narrow the spread is ...
_INNER = 2.0
#: ... and the first and last block of a stack differ by more than others by nature.
_OUTER = 3.0


@rule(
    "SPR101",
    "norm-outlier",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements"),
    limit=6.0,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A matrix is much larger or smaller than the same matrix in the other blocks.

    What it means
        Its RMS, over the median of its role in the stack, lies further out than the limit, in
        units of the spread that all roles and blocks of the file have about their own medians;
        the size of the file is allowed for (one false alarm in a hundred files if the spread
        were normal), and the factor is at least 2 (3 in the first and last block).

    Why it matters
        A block that was scaled, restored from elsewhere, re-initialised at another scale or
        trained at another rate stands out like this. Noise or a swap of blocks does not.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). On 24 files of five
        small healthy transformers, epochs 0 to 4, no matrix had a factor above 1.1. Deep pretrained
        models have first blocks that are a factor of two away by nature. Stacks of fewer than four
        blocks, and files with fewer than 24 matrices in stacks, stay silent; biases and gains are
        not judged.

    What to do
        Compare the block with an earlier checkpoint.

    References
        Rousseeuw & Croux 1993 (median absolute deviation); Dunn 1961 (multiple comparisons).
    """
    assert evidence.checkpoint is not None
    judged = residuals(evidence.checkpoint, lambda tensor: _rms(evidence, tensor))
    outliers = [residual for residual in judged if _stands_out(residual, limit)]
    for place in places(evidence.checkpoint, judged, outliers):
        yield _finding(evidence, place, limit)


def _finding(evidence: Evidence, place: Place, limit: float) -> Finding:
    members = place.outliers
    ratio = median(member.ratio for member in members)
    number = say(" (median of {number} matrices)", number=len(members)) if len(members) > 1 else ""
    return found(
        place.target,
        say(
            "RMS is {ratio:.3g} times that of the same role in the other blocks{number}",
            ratio=ratio,
            number=number,
        ),
        evidence={
            "ratio": ratio,
            "score": max((member.score for member in members), key=abs),
            "tensors": [member.tensor.name for member in members][:100],
        },
        limit=limit,
        advice=advice.restore(evidence, place.pattern),
    )


def _rms(evidence: Evidence, tensor: NamedTensor) -> float | None:
    """Return the RMS of a matrix or kernel; None where one value makes it, as NUM108 tells."""
    assert evidence.measurements is not None
    statistics = evidence.measurements.tensors.get((tensor.set, tensor.name))
    judged = tensor.kind == "parameter" and len(tensor.ref.shape) >= 2 and tensor.role != "lora"
    if not judged or statistics is None or is_isolated(statistics):
        return None
    return statistics.rms


def _stands_out(residual: Residual, limit: float) -> bool:
    factor = max(residual.ratio, 1.0 / residual.ratio)
    return (
        abs(residual.score) > limit
        and abs(residual.score) > residual.least
        and factor > (_OUTER if residual.outer else _INNER)
    )
