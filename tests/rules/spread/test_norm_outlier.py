from __future__ import annotations

import numpy as np
import pytest

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import transformer


def scaled(factor: float, start: str, blocks: int = 6) -> Evidence:
    weights = transformer(blocks=blocks)
    for name in weights:
        if name.startswith(start):
            weights[name] = weights[name] * factor
    return Builder(weights).evidence()


def first_block_apart_by_nature() -> Evidence:
    rng = np.random.default_rng(0)
    weights = transformer()
    for name in weights:
        if name.startswith("decoder.layers.0."):
            weights[name] = weights[name] * rng.uniform(0.6, 1.8)
    return Builder(weights).evidence()


FIRES_ON = {
    "first_block_times_ten": lambda: scaled(10.0, "decoder.layers.0."),
    "one_matrix": lambda: scaled(4.0, "decoder.layers.3.linear1.weight"),
    "shrunk": lambda: scaled(0.1, "decoder.layers.2.self_attn"),
}
SILENT_ON = {
    "first_block_by_nature": first_block_apart_by_nature,
    "all_blocks": lambda: scaled(10.0, "decoder.layers."),
    "three_blocks_tell_nothing": lambda: scaled(10.0, "decoder.layers.0.", blocks=3),
    "a_half_more": lambda: scaled(1.5, "decoder.layers.3."),
}


def test_once_for_a_block() -> None:
    (finding,) = judge(scaled(10.0, "decoder.layers.0."), select=["SPR101"]).findings
    assert finding.target == "decoder.layers.0"
    assert finding.evidence["ratio"] == pytest.approx(10.0, rel=0.2)
    assert len(finding.evidence["tensors"]) == 6


def test_the_tensor_where_it_is_alone() -> None:
    (finding,) = judge(scaled(4.0, "decoder.layers.3.linear1.weight"), select=["SPR101"]).findings
    assert finding.target == "decoder.layers.3.linear1.weight"


def test_one_value_does_not_make_a_matrix_large() -> None:
    weights = transformer()
    weights["decoder.layers.3.linear1.weight"][0, 0] = 1e30
    evidence = Builder(weights).evidence()
    codes = [finding.code for finding in judge(evidence, select=["NUM108", "SPR101"]).findings]
    assert codes == ["NUM108"]
