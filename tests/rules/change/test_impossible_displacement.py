from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.pairs import FC1, evidence, flip_bit, noise, weight

FIRES_ON = {
    "noise": partial(evidence, weight(FC1, noise)),
    "a_flipped_exponent_bit": partial(evidence, flip_bit(26)),
}
SILENT_ON = {"a_healthy_epoch": evidence, "the_first_epoch": partial(evidence, newer=1, older=0)}


def test_names_the_place() -> None:
    findings = judge(evidence(flip_bit(26)), select=["CHG101"]).findings
    assert findings[0].target == "blocks.1.fc1.weight"
    assert findings[0].confidence == "proof"
