"""CHG203: a tensor that is the negative of what it was."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.changes import gathered_matches, of_one_run
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule(
    "CHG203",
    "sign-flip",
    severity="error",
    confidence="likely",
    needs=("checkpoint", "changes"),
    limit=-0.9,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A tensor is nearly the negative of itself in the earlier checkpoint.

    What it means
        The cosine with its own earlier values is below the limit.

    Why it matters
        Norms, spectra and histograms are the same for both signs; only the output is wrong.

    False alarms
        Measured: 0 of 381 healthy pairs (below 0.78 % with 95 % confidence). Tensors below 16
        elements, whose sign may turn in training, are left out.

    What to do
        Bring the tensor back from the earlier checkpoint.

    References
        None: a cosine.
    """
    for change in of_one_run(evidence):
        hits = [
            match
            for match in change.matches
            if match.cosine is not None and match.cosine < limit and match.numel >= 16
        ]
        groups = gathered_matches(hits)
        for target, matches in groups.items():
            yield found(
                target,
                say(
                    "is the negative of itself in {path} (cosine {cosine:.4f})",
                    path=change.a.path,
                    cosine=matches[0].cosine,
                ),
                evidence={
                    "cosine": matches[0].cosine,
                    "tensors": [match.name_b for match in matches][:100],
                },
                limit=limit,
                advice=advice.restore(evidence, target),
            )
