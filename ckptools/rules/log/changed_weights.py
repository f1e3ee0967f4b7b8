"""LOG102: a total changed because its weights did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.log.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


@rule("LOG102", "changed-weights", severity="warning", confidence="hint", needs=("log",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """Two totals of the log were made with different weights and must not be compared.

    What it means
        The layer losses of the later epoch, put under the earlier weights, give another total:
        the difference to the printed one is the weights' work, the rest is the model's.

    Why it matters
        A total that "doubled" may hide a model that got better, and the other way round.

    False alarms
        Not yet measured; hint. The statement is arithmetic once the weights are right.

    What to do
        Compare unweighted losses, layer by layer.

    References
        Design of the accounting: ckptools/logs/losses.py.
    """
    audit: Audit = evidence.log
    split = audit.split
    if split is None:
        return
    model = split.by_model / split.before
    better = say("better") if model < 0 else say("worse")
    before, after = (
        say("epoch {epoch:g}", epoch=one) if one is not None else "?" for one in audit.split_epochs
    )
    assert audit.layers is not None
    assert audit.layers_before is not None
    yield found(
        "aux_total",
        say(
            "{before:.7g} ({epoch_before}) and {after:.7g} ({epoch_after}) carry different "
            "layer weights (sum {sum_before:g} and {sum_after:g}): under the old "
            "ones {epoch_after} gives {under_old_weights:.2f}, so the model got "
            "{model:.1%} {better} and the weights alone add {by_weights:+.1f}",
            before=split.before,
            epoch_before=before,
            after=split.after,
            epoch_after=after,
            sum_before=sum(audit.layers_before),
            sum_after=sum(audit.layers),
            under_old_weights=split.under_old_weights,
            model=abs(model),
            better=better,
            by_weights=split.by_weights,
        ),
        evidence={
            "under_old_weights": split.under_old_weights,
            "by_weights": split.by_weights,
            "by_model": split.by_model,
        },
        advice=again(audit, "--format", "json"),
    )
