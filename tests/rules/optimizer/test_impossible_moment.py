from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.pairs import evidence, zero_second_moment

FIRES_ON = {"a_zeroed_second_moment": partial(evidence, zero_second_moment)}
SILENT_ON = {"a_healthy_epoch": evidence, "the_first_epoch": partial(evidence, newer=1, older=0)}


def test_names_the_place() -> None:
    findings = judge(evidence(zero_second_moment), select=["OPT101"]).findings
    assert findings[0].target == "blocks.1.fc1.weight"
    assert findings[0].confidence == "proof"
