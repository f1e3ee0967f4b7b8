"""LOG204: cases for the contract of rules."""

from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.training_records import RECORD, evidence_of
from tests.rules.log.test_divergence import course


def fall(floor: float, *, count: int = 400, noise: float = 0.02, seed: int = 0) -> Evidence:
    rng = np.random.default_rng(seed)
    values = floor + np.exp(-np.arange(count) / (count / 12))
    values *= np.exp(noise * rng.normal(size=count))
    return evidence_of(
        "".join(f"Epoch 1 step {i}: loss: {value:.5f}\n" for i, value in enumerate(values))
    )


FIRES_ON = {"a floor": lambda: fall(0.8), "a low floor": lambda: fall(0.5, seed=1)}
SILENT_ON = {
    "falls to the end": lambda: fall(0.0),
    "slow": course,
    "leaves for good": lambda: course(onset=50),
    "few values": lambda: fall(0.5, count=50),
    "never fell": lambda: evidence_of("".join(f"step {i} loss: 1.0\n" for i in range(100))),
    "record": lambda: evidence_of(RECORD),
}


def test_since_when() -> None:
    (finding,) = judge(fall(0.8), select=["LOG204"]).findings
    assert "0.8" in finding.message
    assert 100 <= finding.evidence["first"] <= 240
