from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import transformer


def spiked(size: float, *blocks: int) -> Evidence:
    weights = transformer(width=48)
    rng = np.random.default_rng(1)
    for block in blocks:
        name = f"decoder.layers.{block}.linear1.weight"
        rows, columns = weights[name].shape
        spike = np.outer(rng.normal(size=rows), rng.normal(size=columns))
        weights[name] = weights[name] + size * weights[name].std() * spike
    return Builder(weights, spectrum=True).evidence()


FIRES_ON = {"one_block": lambda: spiked(1.5, 3)}
SILENT_ON = {
    "all_blocks": lambda: spiked(1.5, 0, 1, 2, 3, 4, 5),
    "a_small_one": lambda: spiked(0.1, 3),
}


def test_names_the_matrix() -> None:
    (finding,) = judge(spiked(1.5, 3), select=["SPR104"]).findings
    assert finding.target == "decoder.layers.3.linear1.weight"
    assert finding.evidence["edge_ratio"] > 2.5
