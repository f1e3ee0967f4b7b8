"""OPT115: weights and moments that break the balance which their siblings keep."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import listed
from ckptools.types.checkpoint import Checkpoint, OptimizerState, WeightSet
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

#: A single broken law counts from this residual on.
_ALONE = 0.6


@rule(
    "OPT115",
    "unbalanced-state",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements", "slots", "reread"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """Weights and moments do not belong together: a conservation law fails that siblings keep.

    What it means
        Rescaling one matrix and undoing it in the next leaves the network as it is, so gradients,
        and first moments after them, balance between the two. The balance fails here (residual
        near .7 instead of below .2), while it holds in most other blocks.

    Why it matters
        Weights or moments of this place were exchanged, reset, or are of another time.

    False alarms
        Measured: 5 of 360 healthy files of twelve families, in 4 runs (1.4 %; below 2.9 % with 95 %
        confidence): tied weights, half precision, batch norms. The laws are exact for ReLU and
        gated units, attention and norms, and only near for GELU; where weights moved far within the
        memory of the moments they fade for all blocks alike, and nothing is said. Files of more
        than 256 MiB of weights and states are not read for it.

    What to do
        Compare with an earlier file; bring module and state back from there.

    References
        Du et al. 2018 (balance of layers); Kunin et al. 2021 (conservation laws); derivation in
        layouts/parameters/laws.py.
    """
    assert evidence.checkpoint is not None
    for optimizer in evidence.checkpoint.optimizers:
        weights = _trained(evidence.checkpoint, optimizer)
        if weights is None:
            continue
        from ckptools.compare.balance import imbalances  # numpy

        for one in imbalances(optimizer, weights):
            if one.laws < 2 and one.residual < _ALONE:
                continue
            yield found(
                one.module,
                say(
                    "weights and first moments break {laws} of the balances that hold in "
                    "{holding} other places (residual {residual:.2f}): {names}",
                    laws=one.laws,
                    holding=one.holding,
                    residual=one.residual,
                    names=listed(one.names),
                ),
                evidence={"residual": str(one.residual), "names": list(one.names)[:100]},
                advice=advice.history(evidence),
            )


def _trained(checkpoint: Checkpoint, optimizer: OptimizerState) -> WeightSet | None:
    """Return the set that an optimizer trains, where all its states are named."""
    settled = all(s.name and s.standing in ("sure", "by_order") for s in optimizer.states)
    if not optimizer.states or not settled:
        return None
    return next((one for one in checkpoint.weight_sets if one.name == optimizer.set), None)
