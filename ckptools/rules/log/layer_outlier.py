"""LOG106: one layer's loss stands far from all the other layers'."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.advice import command
from ckptools.rules.middle import median
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit

_DIRECTIONS = ("dir", "direction", "cos", "cosine", "angle", "orientation")
#: layers needed to tell one that is odd
_LEAST = 3
#: pre-clip gradient norm times the median segment length in metres; from a miniature of a
#: polyline decoder whose lines were collapsed on purpose
_COLLAPSE = 22.0


@rule("LOG106", "layer-outlier", severity="warning", confidence="hint", needs=("log",), limit=10.0)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """One layer's loss is many times above or below the same loss of every other layer.

    What it means
        The limit is the factor between it and the nearest other layer, while the others lie
        within that factor of each other.

    Why it matters
        Layers share their targets, so their losses go together. A direction loss near zero on
        one layer alone points to collapsed lines: a cosine of zero-length segments is 0 by
        convention, and its gradient grows as one over their length.

    False alarms
        Not yet measured; hint. A term that one layer does not have, or that its target makes
        trivial.

    What to do
        Look at that layer's predictions, and at the weights of its head.

    References
        Liao et al. 2023, MapTR (direction loss).
    """
    audit: Audit = evidence.log
    layers = audit.entry.layers if audit.entry else {}
    for term in dict.fromkeys(term for one in layers.values() for term in one):
        series = {number: one[term] for number, one in layers.items() if one.get(term, 0) > 0}
        for number, value in series.items():
            others = [one for other, one in series.items() if other != number]
            if len(others) < _LEAST - 1 or max(others) > limit * min(others):
                continue
            if value * limit < min(others) or value > limit * max(others):
                yield _finding(audit, term, number, value, others, limit)


def _finding(
    audit: Audit, term: str, number: int, value: float, others: list[float], limit: float
) -> Finding:
    why: str = ""
    if value < min(others) and term.lower() in _DIRECTIONS:
        why = say(
            ": a cosine of zero-length segments is 0 by convention, so this points "
            "to collapsed polylines"
        )
        if audit.clipping and audit.clipping.smallest > 100:
            low, high = _COLLAPSE / audit.clipping.largest, _COLLAPSE / audit.clipping.smallest
            why += say(
                ", and the gradient norms would mean segments of {low:.2g} to {high:.2g} m",
                low=low,
                high=high,
            )
    return found(
        say("{term} of layer {number}", term=term, number=number),
        say(
            "{value:g} against {low:g} to {high:g} on the other layers{why}",
            value=value,
            low=min(others),
            high=max(others),
            why=why,
        ),
        evidence={"value": value, "others_median": median(others)},
        limit=limit,
        advice=command("timeline", "."),
    )
