"""LOG202: cases for the contract of rules."""

from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.training_records import RECORD, evidence_of


def course(*, onset: int | None = None, spike: int | None = None, seed: int = 0) -> Evidence:
    rng = np.random.default_rng(seed)
    values = 2 * np.exp(-np.arange(100) / 60) * np.exp(0.1 * rng.normal(size=100))
    if onset is not None:
        values[onset:] *= 10
    if spike is not None:
        values[spike] *= 50
    rows = [f"Epoch 1 step {i}: loss: {value:.4f}\n" for i, value in enumerate(values)]
    return evidence_of("".join(rows))


FIRES_ON = {"late": lambda: course(onset=80), "early": lambda: course(onset=40)}
SILENT_ON = {
    "falling": course,
    "a spike": lambda: course(spike=50),
    "few values": lambda: evidence_of("Epoch 1: loss: 1.0\nEpoch 2: loss: 99.0\n"),
    "record": lambda: evidence_of(RECORD),
    **{f"noise {seed}": lambda seed=seed: course(seed=seed) for seed in range(1, 6)},
}


def test_the_onset_is_found() -> None:
    for onset in (40, 60, 80):
        (finding,) = judge(course(onset=onset), select=["LOG202"]).findings
        assert abs(finding.evidence["onset"] - onset) <= 3
