"""OPT113: slots of optimizers other than Adam that no gradients leave side by side."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.compare.targets import target_of
from ckptools.rules import advice
from ckptools.rules.changes import beside, premises
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import FEW, count
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

_SAYS = {
    "adamax-moment": say("exp_avg is larger than exp_inf allows"),
    "rmsprop-buffer": say("momentum_buffer is larger than any gradients make it"),
    "adagrad-start": say("sum is below initial_accumulator_value"),
    "amsgrad-maximum": say("max_exp_avg_sq is below exp_avg_sq, whose maximum it is"),
}


@rule(
    "OPT113",
    "impossible-accumulator",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "measurements", "slots"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """A running sum or maximum of squares contradicts what stands beside it.

    What it means
        AMSGrad's maximum is below the second moment, Adagrad's sum below what it started from,
        Adamax's first moment beyond its largest gradient, or RMSprop's buffer beyond what
        normalised gradients add up to. Judged by the largest, smallest and mean elements.

    Why it matters
        The next step divides by these slots: it will be too large.

    False alarms
        Measured: 0 of 382 healthy files (below 0.78 % with 95 % confidence). None as far as the
        premises hold (betas, step counts and settings as saved were used throughout); where one
        fails the finding is a hint and names it. 0 over 140,000 adversarial histories of each kind.

    What to do
        Bring the state back from an earlier checkpoint, or reset the state of this parameter.

    References
        Reddi et al. 2018; Duchi et al. 2011; Kingma & Ba 2015, section 7.1; derivations in
        compare/bounds/relatives.py and decay.py.
    """
    from ckptools.compare.kin import single_bounds  # numpy

    assert evidence.checkpoint is not None
    assert evidence.measurements is not None
    hits = [
        (target_of(optimizer, state), optimizer.key, result)
        for optimizer, state, result in single_bounds(evidence.checkpoint, evidence.measurements)
        if result.above
    ]
    hits.sort(key=lambda hit: -(hit[2].ratio or 0.0))
    several = len({target for target, _, _ in hits}) > FEW
    groups: dict[tuple[str, str], list[tuple[str, str, object]]] = {}
    for target, key, result in hits:
        groups.setdefault((key if several else target, result.bound), []).append(
            (target, key, result)
        )
    worst = {(key if several else target, r.bound): r for target, key, r in reversed(hits)}
    for (target, bound), members in groups.items():
        result = worst[target, bound]
        unknown = premises([result])
        statement = say(
            "{what} ({ratio:.6g} times its limit, in {states})",
            what=_SAYS[bound],
            ratio=result.ratio,
            states=count(len(members), "state"),
        )
        yield found(
            target,
            statement + beside(unknown),
            evidence={"bound": bound, "ratio": str(result.ratio), "states": len(members)},
            limit=1.0,
            confidence="hint" if unknown else "",
            advice=advice.history(evidence),
        )
