from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.pairs import FC1, evidence, noise, reinitialise, weight

FIRES_ON = {
    "noise": partial(evidence, weight(FC1, noise)),
    "a_fresh_projection": partial(evidence, reinitialise("proj.weight")),
}
SILENT_ON = {"a_healthy_epoch": evidence, "the_first_epoch": partial(evidence, newer=1, older=0)}


def test_names_the_place() -> None:
    findings = judge(evidence(reinitialise("proj.weight")), select=["CHG204"]).findings
    assert findings[0].target == "proj.weight"
    assert findings[0].confidence == "hint"
