from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.pairs import evidence, swap_blocks

FIRES_ON = {"exchanged_blocks": partial(evidence, swap_blocks)}
SILENT_ON = {"a_healthy_epoch": evidence, "the_first_epoch": partial(evidence, newer=1, older=0)}


def test_names_the_place() -> None:
    findings = judge(evidence(swap_blocks), select=["CHG202"]).findings
    assert findings[0].target == "blocks.0.fc1.weight"
    assert findings[0].confidence == "likely"


def test_says_that_they_were_exchanged() -> None:
    findings = judge(evidence(swap_blocks), select=["CHG202"]).findings
    assert {finding.evidence["best_match"] for finding in findings} >= {"blocks.0.fc1.weight"}
    assert all("exchanged" in finding.message for finding in findings)
