"""LOG108: the weights of the layers are not printed, and differ or cannot be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.log.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import join, say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


@rule("LOG108", "layer-weights", severity="note", confidence="hint", needs=("log",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The auxiliary total has weights of the layers that the log does not print.

    What it means
        With more entries than layers the weights follow from the totals; with fewer, infinitely
        many weights give the same totals, unless all layers have the same.

    Why it matters
        Without them an auxiliary total says nothing about any single layer.

    False alarms
        Not yet measured; hint. The statement is arithmetic once the component weights are right.

    What to do
        Give the weights in a run card, or log more entries.

    References
        Design of the accounting: ckptools/logs/losses.py.
    """
    audit: Audit = evidence.log
    if audit.components is None or not audit.components.unique or "layers" in audit.printed:
        return
    if audit.layers is None and not audit.layers_unique:
        yield found(
            "aux_total",
            say("the weights of the layers cannot be told from the totals: not unique"),
            advice=again(audit, "--format", "json"),
        )
    elif audit.layers is not None and len(set(audit.layers)) > 1:
        weights = join([f"{one:.4g}" for one in audit.layers])
        yield found(
            "aux_total",
            say("the layers carry the weights {weights}, as the totals tell", weights=weights),
            evidence={"layers": list(audit.layers)},
            advice=again(audit, "--format", "json"),
        )
