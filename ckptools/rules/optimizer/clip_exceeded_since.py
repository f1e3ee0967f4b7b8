"""OPT116: what the steps since an earlier file added is more than clipped gradients can add."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.changes import beside, of_one_run
from ckptools.rules.clips import in_force
from ckptools.rules.doubts import of_history
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule(
    "OPT116",
    "clip-exceeded-since",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "changes"),
    limit=0.0,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """The steps since the earlier checkpoint added more to the moments than clipped gradients can.

    What it means
        Clipped to the norm C, the gradients of n steps add at most C^2 (1 - beta2^n) to the sum of
        second moments, and leave a first moment at most C (1 - beta1^n) away from what decay made
        of the older one. The moments of all parameters together are further.

    Why it matters
        A few recent steps drown in a memory of thousands; between two files they stand alone.
        Either the clip did not act, or the moments are not what these steps left.

    False alarms
        Not yet measured on the zoo. None where the limit of the rule is set to the clip in force
        ([limits] OPT116 = 5.0), as far as the premises hold: an ancestor's file, betas constant
        between the files, one clip over all gradients, own step counts right. A clip that is only
        read from the saved arguments may never have been used: then the finding is a hint. Files
        are read as far as 16 million elements go; a part of the parameters keeps the bound.

    What to do
        Check where the training loop clips; look at the gradient norms of these steps in the log.

    References
        Pascanu et al. 2013; derivation in compare/bounds/clip.py.
    """
    from ckptools.compare.clipping import clipped_since  # numpy

    clip = in_force(evidence, limit)
    if clip is None:
        return
    for change in of_one_run(evidence):
        for one in clipped_since(change):
            result = one.against(clip.value)
            if not result.above:
                continue
            unknown = clip.unknown(result) or of_history(change)
            message = say(
                "{steps} steps since {path} added a gradient norm of {norm:.4g}, {ratio:.4g} "
                "times what a clip at {limit:g} allows",
                steps=one.steps,
                path=change.a.path,
                norm=one.norm,
                ratio=result.ratio,
                limit=clip.value,
            )
            yield found(
                one.optimizer.key,
                message + beside(unknown),
                evidence={
                    "gradient_norm": one.norm,
                    "ratio": result.ratio,
                    "clip": clip.value,
                    "steps": one.steps,
                },
                limit=clip.value,
                confidence="hint" if unknown else "",
                advice=advice.history(evidence),
            )
