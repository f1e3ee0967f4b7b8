from __future__ import annotations

from functools import partial

import numpy as np

from ckptools.rules import judge
from ckptools.types.checkpoint import RunState
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import adam


def norms(*counts: int, tops: int = 1, step: float | None = None) -> Evidence:
    weights = {}
    for number, batches in enumerate(counts):
        name = f"{'gd'[number % tops]}.layers.{number}.bn"
        weights[f"{name}.weight"] = np.random.default_rng(number).normal(1, 0.1, 16)
        weights[f"{name}.num_batches_tracked"] = np.array(batches, dtype=np.int64)
    builder = Builder(weights, run=RunState(epoch=3))
    if step is not None:
        slots = adam({n: v for n, v in weights.items() if n.endswith("weight")})
        builder.add_adam(slots, step=step)
    return builder.evidence()


FIRES_ON = {
    "one_behind": partial(norms, 100, 100, 40, 100, 100),
    "none_counted": partial(norms, 0, 0, 0, step=50.0),
}
SILENT_ON = {
    "all_alike": partial(norms, 100, 100, 100, 100),
    "two_networks": partial(norms, 1875, 2811, 1875, 2811, 1875, 2811, tops=2),
    "no_majority": partial(norms, 1, 2, 3, 4, 5),
    "before_training": partial(norms, 0, 0, 0),
}


def test_names_the_layer() -> None:
    (finding,) = judge(norms(100, 100, 40, 100, 100), select=["RUN112"]).findings
    assert finding.target == "g.layers.2.bn.num_batches_tracked"
    assert finding.evidence["usual"] == 100
