from __future__ import annotations

from functools import partial

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder


def norm(lowest: float, batches: int, *, averaged: str = "model") -> Evidence:
    variance = np.array([1.0, 1.2, 2.0, lowest], dtype=np.float32)
    weights = {
        "bn.weight": np.ones(4) * 1.1,
        "bn.running_mean": np.array([0.1, 0.2, -0.3, 0.4]),
        "bn.running_var": variance,
        "bn.num_batches_tracked": np.array(batches, dtype=np.int64),
    }
    return Builder(weights, set=averaged).evidence()


FIRES_ON = {"negative": partial(norm, -1e-8, 500), "fallen": partial(norm, 0.5, 3)}
SILENT_ON = {
    "trained": partial(norm, 0.01, 500),
    "dead_channel": partial(norm, 5.6e-45, 5000),
    "as_far_as_it_can": partial(norm, 0.9**3, 3),
    "fresh": partial(norm, 1.0, 0),
}


def test_only_negative_values_are_proofs() -> None:
    (proved,) = judge(norm(-1e-8, 500), select=["NUM110"]).findings
    assert proved.confidence == "proof"
    (assumed,) = judge(norm(0.5, 3), select=["NUM110"]).findings
    assert assumed.confidence == "hint"
