"""LOG108: cases for the contract of rules."""

from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.training_records import RECORD, changed, evidence_of, without


def run(weights: list[float], entries: int, seed: int = 0) -> Evidence:
    """Return a log of totals with these weights of the layers, which it does not print."""
    rng = np.random.default_rng(seed)
    lines = []
    for epoch in range(1, entries + 1):
        losses = np.round(rng.uniform(0.5, 9, size=(len(weights) + 1, 2)), 4)
        sums = losses @ np.array([2.0, 0.25])
        lines += [f"## Epoch {epoch}", f"loss_total: {sums[0]:.4f}"]
        lines += [f"loss_aux_total: {sums[1:] @ np.array(weights):.4f}"]
        lines += [f"loss_a: {losses[0, 0]:.4f}", f"loss_b: {losses[0, 1]:.4f}"]
        lines += [f"Layer {n}: a={a:.4f}, b={b:.4f}" for n, (a, b) in enumerate(losses[1:])]
    return evidence_of("\n".join(lines) + "\n")


FIRES_ON = {
    "a ramp over many epochs": lambda: run([0.1, 0.2, 0.3, 0.4], 20),
    "a ramp in few epochs": lambda: run([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 3),
}
SILENT_ON = {
    "printed": lambda: evidence_of(RECORD),
    "the same for all": lambda: run([0.5] * 4, 20),
    "the same for all, few epochs": lambda: run([0.5] * 4, 3),
    "no totals": lambda: evidence_of(without("loss_total", "loss_aux_total")),
    "no such weights": lambda: evidence_of(changed("35.9598", "37.1234")),
}


def test_what_is_said() -> None:
    (many,) = judge(FIRES_ON["a ramp over many epochs"](), select=["LOG108"]).findings
    assert "0.1, 0.2, 0.3, 0.4" in many.message
    (found,) = judge(run([0.1, 0.2, 0.3, 0.4], 3), select=["LOG108"]).findings
    assert "0.1, 0.2, 0.3, 0.4" in found.message
    (few,) = judge(FIRES_ON["a ramp in few epochs"](), select=["LOG108"]).findings
    assert "not unique" in few.message
