"""LOG101: the weights of the losses are not printed and follow from the totals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.log.advice import again, formula, target
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


#: how weights were found where the log does not print them
_METHODS = {"simplest numbers": say("simplest numbers"), "least squares": say("least squares")}

_SURE = {
    "simplest numbers": say("no other simple numbers do"),
    "least squares": say("no other weights do"),
}


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
    if weights is None or weights.method not in _METHODS:
        return
    if all(one == 1.0 for one in weights.weights.values()):
        return
    sure = _SURE[weights.method]
    if not weights.unique:
        sure = say(
            "not unique: {others} other combinations of simple numbers do, too",
            others=weights.others,
        )
    layers = ""
    if audit.layers and len(set(audit.layers)) == 1:
        layers = say(
            "; the auxiliary total is {layers:g} · the sum of it over all layers",
            layers=audit.layers[0],
        )
    yield found(
        target(audit),
        say(
            "total = {formula} ({method}; {sure}){layers}",
            formula=formula(weights.weights),
            method=_METHODS[weights.method],
            sure=sure,
            layers=layers,
        ),
        evidence={**weights.weights, "residual": weights.residual},
        advice=again(audit, "--format", "json"),
    )
