from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import convolutional, transformer


def narrowed(*blocks: int) -> Evidence:
    weights = transformer()
    for block in blocks:
        weights[f"decoder.layers.{block}.linear1.bias"] = np.ones(96) * 0.01
    return Builder(weights).evidence()


FIRES_ON = {"an_inner_block": lambda: narrowed(2)}
SILENT_ON = {
    "the_first_block": lambda: narrowed(0),
    "several_blocks": lambda: narrowed(2, 4),
    "pyramid": convolutional,
}


def test_names_both_shapes() -> None:
    (finding,) = judge(narrowed(2), select=["KEY104"]).findings
    assert finding.target == "decoder.layers.2.linear1.bias"
    assert finding.evidence == {"shape": [96], "usual": [128]}
