from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.pairs import evidence, old_step

FIRES_ON = {"one_old_step": partial(evidence, old_step)}
SILENT_ON = {"a_healthy_epoch": evidence, "the_first_epoch": partial(evidence, newer=1, older=0)}


def test_names_the_place() -> None:
    findings = judge(evidence(old_step), select=["OPT103"]).findings
    assert findings[0].target == "blocks.1.fc1.weight"
    assert findings[0].confidence == "hint"
