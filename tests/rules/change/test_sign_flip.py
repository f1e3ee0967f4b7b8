from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.pairs import FC1, evidence, weight

FIRES_ON = {"a_flipped_sign": partial(evidence, weight(FC1, lambda t: t.neg_()))}
SILENT_ON = {"a_healthy_epoch": evidence, "the_first_epoch": partial(evidence, newer=1, older=0)}


def test_names_the_place() -> None:
    findings = judge(evidence(weight(FC1, lambda t: t.neg_())), select=["CHG203"]).findings
    assert findings[0].target == "blocks.1.fc1.weight"
    assert findings[0].confidence == "likely"
