"""OPT111: moments that gradients clipped to their limit cannot have left."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.changes import beside
from ckptools.rules.clips import in_force
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule(
    "OPT111",
    "clip-exceeded",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "measurements", "slots"),
    limit=0.0,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """All moments together are larger than gradients clipped at their limit can make them.

    What it means
        Clipped to the norm C, the gradients of t steps leave a sum of second moments of at most
        C^2 (1 - beta2^t), and a norm of first moments of at most C (1 - beta1^t); parameters that
        skipped steps count less. The moments are beyond that.

    Why it matters
        Either the clip did not act (it was switched off, or came before unscaling), or the
        moments are not what training left.

    False alarms
        Measured: 0 of 382 healthy files (below 0.78 % with 95 % confidence). None where the limit
        of the rule is set to the clip in force ([limits] OPT111 = 5.0), as far as the premises
        hold; 0 over 2,188 clipped histories. A clip that is only read from the saved arguments may
        never have been used, or per group: then the finding is a hint.

    What to do
        Check where the training loop clips; if it does, look for the parameters whose gradient
        norm stands out and bring their states back from an earlier file.

    References
        Pascanu et al. 2013; derivation in compare/bounds/clip.py.
    """
    from ckptools.compare.clipping import clipped  # numpy

    assert evidence.checkpoint is not None
    assert evidence.measurements is not None
    clip = in_force(evidence, limit)
    if clip is None:
        return
    for one in clipped(evidence.checkpoint, evidence.measurements):
        result = one.against(clip.value)
        if not result.above:
            continue
        unknown = clip.unknown(result)
        message = say(
            "a gradient norm of {norm:.4g} is remembered, {ratio:.4g} times what a clip at "
            "{limit:g} allows",
            norm=one.norm,
            ratio=result.ratio,
            limit=clip.value,
        )
        yield found(
            one.optimizer.key,
            message + beside(unknown),
            evidence={"gradient_norm": one.norm, "ratio": result.ratio, "clip": clip.value},
            limit=clip.value,
            confidence="hint" if unknown else "",
            advice=advice.history(evidence),
        )
