from __future__ import annotations

from dataclasses import replace

from ckptools.rules import judge
from ckptools.types.change import Match
from ckptools.types.evidence import Evidence
from tests.builders.pairs import evidence


def jumped(largest: float, numel: int = 10_000) -> Evidence:
    """Return an epoch in which one element of a tensor moved by ``largest``, the rest by .001."""
    whole = evidence()
    rest = 1e-6 * (numel - 1)
    change = ((rest + largest**2) ** 0.5) / 10.0
    match = Match(
        "x",
        "x",
        "model",
        "x",
        numel=numel,
        dimensions=2,
        relative_change=change,
        cosine=0.999,
        norm_ratio=1.0,
        max_abs_change=largest,
        norm_a=10.0,
        norm_b=10.0,
    )
    newer = replace(whole.changes[0], matches=(*whole.changes[0].matches, match))
    return replace(whole, changes=(newer,))


FIRES_ON = {"one_element_far_away": lambda: jumped(0.1)}
SILENT_ON = {"a_healthy_epoch": evidence, "a_long_tail": lambda: jumped(0.01)}


def test_says_how_far() -> None:
    (finding,) = judge(jumped(0.1), select=["CHG205"]).findings
    assert finding.target == "x"
    assert 60 < finding.evidence["ratio"] < 100
