from __future__ import annotations

import numpy as np

from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import masked, transformer

NAME = "decoder.layers.3.linear1.weight"


def planted(value: float, dtype: str) -> Evidence:
    weights = transformer()
    weights[NAME][2, 2] = value
    return Builder(weights, dtype=dtype).evidence()


def scaled_to_the_edge() -> Evidence:
    rng = np.random.default_rng(0)
    weights = {"fc1.weight": rng.uniform(-448, 448, (32, 32))}
    return Builder(weights, dtype="float8_e4m3fn").evidence()


FIRES_ON = {
    "half": lambda: planted(-4e4, "float16"),
    "bfloat": lambda: planted(2.5e38, "bfloat16"),
    "single": lambda: planted(2.5e38, "float32"),
}
SILENT_ON = {
    "below_half_of_the_limit": lambda: planted(3e4, "float16"),
    "eight_bit_floats": scaled_to_the_edge,
    "masks": masked,
}
