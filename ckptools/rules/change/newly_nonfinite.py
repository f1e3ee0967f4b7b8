"""CHG102: elements that turned NaN or infinite since the earlier checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules import advice
from ckptools.rules.changes import gathered_matches
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import count, say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Match


@rule(
    "CHG102",
    "newly-nonfinite",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "changes"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """Elements that were finite in the earlier checkpoint are NaN or infinite in this one.

    What it means
        The same tensor was compared element by element; so many of them are no numbers any more.

    Why it matters
        One NaN spreads to the whole model within a forward and a backward pass.

    False alarms
        Measured: 0 of 381 healthy pairs (below 0.78 % with 95 % confidence). None in the statement
        itself. Masks that hold infinities do so in both files.

    What to do
        Go back to the earlier checkpoint and look for the step that overflowed, or repair the
        tensor from there.

    References
        IEEE 754-2019, section 6.
    """
    for change in evidence.changes[:1]:
        hits = [match for match in change.matches if match.broken]
        hits.sort(key=lambda match: -match.broken)
        groups = gathered_matches(hits)
        for target, matches in groups.items():
            elements = sum(match.broken for match in matches)
            yield found(
                target,
                say(
                    "{elements}, finite in {path}, turned into NaN or infinity",
                    elements=count(elements, "element"),
                    path=change.a.path,
                ),
                evidence={"elements": elements, "tensors": _names(matches)},
                advice=advice.restore(evidence, target),
            )


def _names(matches: list[Match]) -> list[str]:
    return [match.name_b for match in matches][:100]
