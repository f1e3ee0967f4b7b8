from __future__ import annotations

import numpy as np
import pytest

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import adam, trained_transformer, transformer

NAME = "head.weight"


def planted(slot: str, value: float) -> Evidence:
    weights = transformer()
    slots = adam(weights)
    slots[NAME][slot] = np.abs(slots[NAME].get(slot, np.ones(weights[NAME].shape)))
    slots[NAME][slot][1, 1] = value
    return Builder(weights).add_adam(slots).evidence()


FIRES_ON = {
    "one_sign_bit": lambda: planted("exp_avg_sq", -1e-12),
    "amsgrad": lambda: planted("max_exp_avg_sq", -1.0),
    "rmsprop": lambda: planted("square_avg", -1e-30),
}
SILENT_ON = {
    "healthy_moments": trained_transformer,
    "zero": lambda: planted("exp_avg_sq", 0.0),
    "minus_zero": lambda: planted("exp_avg_sq", -0.0),
    "first_moments_may_be_negative": lambda: planted("exp_avg", -1.0),
}


def test_names_the_parameter() -> None:
    (finding,) = judge(planted("exp_avg_sq", -1e-12), select=["NUM103"]).findings
    assert finding.target == NAME
    assert finding.evidence["min"] == pytest.approx(-1e-12)
