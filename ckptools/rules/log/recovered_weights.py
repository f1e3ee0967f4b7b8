"""LOG101: the weights of the losses are not printed and follow from the totals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.log.advice import again, formula, target
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


@rule("LOG101", "recovered-weights", severity="note", confidence="hint", needs=("log",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The totals of the log are a weighted sum whose weights it does not print.

    What it means
        These weights reproduce the logged totals to their printed precision. With few entries
        they are the simplest numbers that do; whether others do, too, is said.

    Why it matters
        Without the weights no two totals, terms or layers of the log can be compared.

    False alarms
        Not yet measured; hint. Chance reproduces a total of many terms; no more than four are
        searched, and unweighted sums are not reported.

    What to do
        Compare with the training script; give the true ones in a run card.

    References
        Design of the accounting: ckptools/logs/losses.py.
    """
    audit: Audit = evidence.log
    weights = audit.components
    if weights is None or weights.method not in ("simplest numbers", "least squares"):
        return
    if all(one == 1.0 for one in weights.weights.values()):
        return
    sure = (
        "no other simple numbers do"
        if weights.unique
        else (f"not unique: {weights.others} other combinations of simple numbers do, too")
    )
    layers = ""
    if audit.layers and len(set(audit.layers)) == 1:
        layers = f"; the auxiliary total is {audit.layers[0]:g} · the sum of it over all layers"
    yield found(
        target(audit),
        f"total = {formula(weights.weights)} ({weights.method}; {sure}){layers}",
        evidence={**weights.weights, "residual": weights.residual},
        advice=again(audit, "--format", "json"),
    )
