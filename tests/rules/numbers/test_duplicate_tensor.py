from __future__ import annotations

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import epoch_zero, tied, transformer


def copied(source: int, *targets: int) -> Evidence:
    weights = transformer()
    for name in list(weights):
        for target in targets:
            if name.startswith(f"decoder.layers.{target}."):
                weights[name] = weights[name.replace(f".{target}.", f".{source}.", 1)].copy()
    return Builder(weights).evidence()


def stored_twice() -> Evidence:
    weights = transformer(blocks=2)
    weights["lm_head.weight"] = weights["embed.weight"].copy()
    return Builder(weights).evidence()


FIRES_ON = {
    "a_block_over_another": lambda: copied(1, 3),
    "one_block_everywhere": lambda: copied(0, 1, 2, 3, 4, 5),
    "tied_but_stored_twice": stored_twice,
}
SILENT_ON = {"tied": tied, "copies_before_training": epoch_zero}


def test_a_copied_block_is_one_finding() -> None:
    (finding,) = judge(copied(1, 3), select=["NUM109"]).findings
    assert finding.target == "decoder.layers.3"
    assert finding.severity == "warning"
    assert finding.evidence["equal_to"] == "decoder.layers.1"
    assert len(finding.evidence["tensors"]) == 6


def test_shared_on_purpose_is_one_note() -> None:
    (finding,) = judge(copied(0, 1, 2, 3, 4, 5), select=["NUM109"]).findings
    assert finding.severity == "note"
    assert finding.evidence["count"] == 6 * 5


def test_stored_twice_is_a_note() -> None:
    (finding,) = judge(stored_twice(), select=["NUM109"]).findings
    assert (finding.target, finding.severity) == ("lm_head.weight", "note")
