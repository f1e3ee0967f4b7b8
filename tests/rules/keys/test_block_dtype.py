from __future__ import annotations

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import half_transformer, transformer


def cast(*blocks: int) -> Evidence:
    weights = transformer()
    dtypes = {
        name: "float16"
        for name in weights
        if any(name.startswith(f"decoder.layers.{block}.") for block in blocks)
    }
    return Builder(weights, dtypes=dtypes).evidence()


FIRES_ON = {"an_inner_block": lambda: cast(3)}
SILENT_ON = {"all": half_transformer, "several_blocks": lambda: cast(1, 3)}


def test_once_for_the_block() -> None:
    (finding,) = judge(cast(3), select=["KEY105"]).findings
    assert finding.target == "decoder.layers.3"
    assert finding.evidence["dtypes"] == ["float16"]
    assert len(finding.evidence["tensors"]) == 16
