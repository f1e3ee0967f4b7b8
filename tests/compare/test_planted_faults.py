"""Each of the usual faults in its own file of a small run, the previous epoch at hand.

Two of the seventeen (a truncated file, a flipped bit beneath a checksum) are faults of the
container: tests/formats holds them.
"""

from __future__ import annotations

import pytest

from ckptools.rules import judge
from tests.builders.pairs import FAULTS, evidence


@pytest.mark.parametrize("name", FAULTS)
def test_found_and_the_right_place_first(name: str) -> None:
    fault, places = FAULTS[name]
    judgement = judge(evidence(fault))
    assert judgement.crashed == ()
    assert judgement.findings, "not found"
    first = judgement.findings[0]
    assert first.target.startswith(places), [(f.code, f.target) for f in judgement.findings]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("newer", [1, 2, 3, 4, 5])
def test_nothing_above_a_hint_on_health(newer: int, seed: int) -> None:
    judgement = judge(evidence(newer=newer, older=newer - 1, seed=seed))
    assert judgement.crashed == ()
    loud = [(f.code, f.target, f.message) for f in judgement.findings if f.confidence != "hint"]
    assert loud == []
