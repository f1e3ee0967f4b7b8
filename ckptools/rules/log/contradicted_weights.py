"""LOG109: weights that were given do not give the totals that were logged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.log.advice import again, target
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import join, say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


@rule("LOG109", "contradicted-weights", severity="warning", confidence="hint", needs=("log",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """Weights of the card, or printed in the log, do not reproduce the logged totals.

    What it means
        The terms of the log, put under these weights, give other totals than the log prints, by
        more than their rounding explains.

    Why it matters
        The run was not trained with the weights that are written down.

    False alarms
        Not yet measured; hint. Totals that hold terms which the log does not print.

    What to do
        Look up the weights in the configuration that the run really loaded.

    References
        Design of the accounting: ckptools/logs/losses.py.
    """
    audit: Audit = evidence.log
    weights = audit.components
    if weights is not None and weights.method == "run card" and weights.residual > 0:
        yield found(
            target(audit),
            say(
                "the weights of the run card miss the logged total by up to {off:.2%}",
                off=weights.residual,
            ),
            evidence={"residual": weights.residual},
            advice=again(audit, "--format", "json"),
        )
    if audit.contradicted:
        given = join([f"{one:g}" for one in audit.contradicted])
        yield found(
            "aux_total",
            say("the printed weights of the layers ({given}) do not give this total", given=given),
            evidence={"layers": list(audit.contradicted)},
            advice=again(audit, "--format", "json"),
        )
