"""CHG112: weights that moved further than SGD, Adagrad, RMSprop or Lion can move them."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.changes import beside, of_one_run
from ckptools.rules.kin import breaches
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule(
    "CHG112",
    "impossible-travel",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "changes"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """A weight moved further since the earlier checkpoint than its optimizer can have moved it.

    What it means
        SGD with momentum moves a weight along its buffer (judged over one step), Lion by its
        learning rate a step, Adagrad and RMSprop by what their sums of squares allow. At least
        one element is beyond, rounding included: something else than training wrote it.

    Why it matters
        Whatever wrote it (a flipped bit, a wrong shard, a reset module) is not in the log.

    False alarms
        Measured: 0 of 381 healthy pairs (below 0.78 % with 95 % confidence). None as far as the
        premises hold; where one is assumed (the largest learning rate between the files, the
        state's name, one run) the finding is a hint and names it. 0 over 160,000 adversarial
        histories of Adagrad and of RMSprop each.

    What to do
        Bring the module back from the earlier checkpoint.

    References
        Duchi et al. 2011; Chen et al. 2023 (Lion); derivations in compare/bounds/relatives.py.
    """
    from ckptools.compare.kin import travels  # numpy

    for change in of_one_run(evidence):
        for breach in breaches(change, travels(change)):
            yield found(
                breach.target,
                say(
                    "{above:,} of {judged:,} elements moved up to {ratio:.4g} times as far as "
                    "{steps} steps can",
                    above=breach.worst.above,
                    judged=breach.worst.judged,
                    ratio=breach.worst.ratio,
                    steps=breach.states[0].steps,
                )
                + beside(breach.unknown),
                evidence={
                    "bound": breach.worst.bound,
                    "tensors": [one.target for one in breach.states][:100],
                },
                limit=1.0,
                confidence="hint" if breach.unknown else "",
                advice=advice.restore(evidence, breach.target if breach.states[0].name else None),
            )
