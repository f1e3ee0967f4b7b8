"""CHG114: a running variance that fell faster than its momentum allows."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.changes import of_one_run
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import FEW, listed
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

#: torch's default momentum, which files do not hold.
_MOMENTUM = 0.1


@rule(
    "CHG114",
    "variance-fell",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "changes"),
    limit=0.0,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A BatchNorm layer's running variance fell faster than its batches can let it fall.

    What it means
        Every batch keeps at least the share 1 - momentum of the running variance. Between the
        files a channel lost more than the counted batches allow, or the counter did not move and
        the variance did.

    Why it matters
        The layer divides by the root of it: its statistics were reset, recalibrated, or taken from
        elsewhere.

    False alarms
        Measured: 0 of 381 healthy pairs (below 0.78 % with 95 % confidence). None where the
        momentum is given ([limits] CHG114 = 0.1) and never higher. Files do not hold it: with
        torch's default of .1 the finding is a hint. Statistics recomputed on purpose, as after
        weight averaging, look the same.

    What to do
        Bring the layer back from the earlier checkpoint, or recompute its statistics.

    References
        Ioffe & Szegedy 2015, algorithm 2; derivation in compare/bounds/batchnorm.py.
    """
    from ckptools.compare.running import falls  # numpy

    momentum = limit if 0 < limit < 1 else _MOMENTUM
    for change in of_one_run(evidence):
        hits = [one for one in falls(change, momentum) if one.result.above]
        hits.sort(key=lambda one: -(one.result.ratio or 0.0))
        for group in [hits] if len(hits) > FEW else [[one] for one in hits]:
            worst = group[0]
            yield found(
                worst.name,
                say(
                    "running_var fell in {above} of {judged} channels to {ratio:.4g} times less "
                    "than {batches} batches allow ({names})",
                    above=worst.result.above,
                    judged=worst.result.judged,
                    ratio=worst.result.ratio,
                    batches=worst.batches,
                    names=listed([one.name for one in group]),
                )
                + ("" if limit > 0 else say(" (a momentum of {value} is assumed)", value=momentum)),
                evidence={"batches": worst.batches, "tensors": [one.name for one in group][:100]},
                limit=1.0,
                confidence="" if limit > 0 else "hint",
                advice=advice.restore(evidence, worst.name),
            )
