from __future__ import annotations

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import alternating, transformer


def without(suffix: str, *blocks: int) -> Evidence:
    weights = transformer()
    for block in blocks:
        del weights[f"decoder.layers.{block}.{suffix}"]
    return Builder(weights).evidence()


FIRES_ON = {"one_bias": lambda: without("linear1.bias", 3)}
SILENT_ON = {
    "two_blocks": lambda: without("linear1.bias", 2, 3),
    "the_last_block": lambda: without("linear1.bias", 5),
    "every_second": alternating,
}


def test_names_the_block_and_what_it_lacks() -> None:
    (finding,) = judge(without("linear1.bias", 3), select=["KEY107"]).findings
    assert finding.target == "decoder.layers.3"
    assert finding.evidence["missing"] == ["linear1.bias"]
