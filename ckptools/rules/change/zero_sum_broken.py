"""CHG111: sums of a first moment that were zero in the earlier checkpoint and are not now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules import advice
from ckptools.rules.changes import beside, of_one_run, premises, same_history
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import FEW, listed
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.compare.zero_sums import ZeroSum
    from ckptools.types.change import Change

#: So many identities, and this share of all, must still hold: then the network is the same.
_HOLDING, _SHARE = 3, 0.75


@rule(
    "CHG111",
    "zero-sum-broken",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "changes"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """A first moment no longer sums to zero, although the network forces it to.

    What it means
        Behind a softmax, and in whatever is read only through LayerNorm, gradients sum to zero
        over classes or features, so first moments do, at every step. In the earlier checkpoint
        this one did (to a millionth of the gradients), and here it does not, while most other
        sums of the file are still zero.

    Why it matters
        Values of the moment were changed, in a single element or in all; no step does that.

    False alarms
        Measured: 0 of 381 healthy pairs (below 0.78 % with 95 % confidence). None as far as the
        premises hold: one network, precision and loss in both files, which is taken as shown where
        at least three other sums, and three quarters of all, still are zero and every norm's gain
        has left its initial value; else the finding is a hint. The limit is 30 times the largest
        healthy sum among 4,600 of 80 files. Beside a loss scaler (computed in half precision) and
        with coupled weight decay the sums are not exact, and nothing is said. At most 64 MiB of
        first moments are looked at.

    What to do
        Bring the state back from the earlier checkpoint, or reset the state of this parameter.

    References
        Ba et al. 2016 (LayerNorm ignores a constant); derivation in compare/bounds/zero_sum.py.
    """
    from ckptools.compare.zero_sums import zero_sums  # numpy

    for change in of_one_run(evidence):
        sums = [] if change.b.run.scaler else zero_sums(change)
        told = (s for s in sums if s.result.above and "decay-kind" not in s.result.failed)
        broken = sorted(told, key=lambda s: -s.after)
        if not broken:
            continue
        holding = len(sums) - len(broken)
        several = len({one.target for one in broken}) > FEW
        unknown = _unknown(change, sums, broken)
        for target in [_optimizer(change)] if several else dict.fromkeys(s.target for s in broken):
            mine = broken if several else [one for one in broken if one.target == target]
            yield found(
                target,
                say(
                    "sums of exp_avg are {after:.2g} of the gradients, {before:.2g} in the earlier "
                    "file; {holding} others still are zero ({names})",
                    after=mine[0].after,
                    before=mine[0].before,
                    holding=holding,
                    names=listed(list(dict.fromkeys(one.target for one in mine))),
                )
                + beside(unknown),
                evidence={
                    "before": mine[0].before,
                    "after": mine[0].after,
                    "ratio": mine[0].result.ratio,
                    "axis": mine[0].axis,
                    "holding": holding,
                },
                limit=1.0,
                confidence="hint" if unknown else "",
                advice=advice.restore(evidence, mine[0].name if not several else None),
            )


def _optimizer(change: Change) -> str:
    return change.b.optimizers[0].key


def _unknown(change: Change, sums: list[ZeroSum], broken: list[ZeroSum]) -> str:
    """Return which premise is not shown, or an empty text."""
    holding = len(sums) - len(broken)
    if holding < _HOLDING or holding < _SHARE * len(sums):
        return say("that the network and its precision are the same is assumed")
    if not same_history(change):
        return say("the older file may be of another run")
    return premises(one.result for one in broken)
