from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import transformer

NAME = "decoder.layers.3.linear1.weight"


def flipped(bit: int, name: str = NAME) -> Evidence:
    weights = {key: values.astype(np.float32) for key, values in transformer().items()}
    raw = weights[name].reshape(-1).view(np.uint32)
    raw[5] ^= np.uint32(1 << bit)
    return Builder(weights).evidence()


def heavy_tails() -> Evidence:
    rng = np.random.default_rng(0)
    weights = {"fc1.weight": rng.standard_t(2.5, (64, 64)) * 0.02}
    return Builder(weights).evidence()


def few_values() -> Evidence:
    values = np.zeros((16, 16))
    values[0, :8] = 1e-9
    values[1, 1] = 0.3
    return Builder({"fc1.weight": values}).evidence()


def times(factor: float) -> Evidence:
    weights = transformer()
    weights[NAME][4, 4] = factor * np.abs(weights[NAME]).max()
    return Builder(weights).evidence()


FIRES_ON = {"bit_30": lambda: flipped(30), "a_thousandfold": lambda: times(1000.0)}
SILENT_ON = {
    "heavy_tails": heavy_tails,
    "few_values": few_values,
    "eightfold": lambda: times(8.0),
    "mantissa": lambda: flipped(22),
}


def test_says_how_many_and_how_far() -> None:
    (finding,) = judge(flipped(30), select=["NUM108"]).findings
    assert finding.target == NAME
    assert finding.evidence["isolated"] == 1
    assert finding.evidence["exponent_gap"] > 100
