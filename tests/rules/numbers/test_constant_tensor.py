from __future__ import annotations

import numpy as np

from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import adam, epoch_zero, transformer


def filled(value: float, *names: str, moments: bool = False) -> Evidence:
    weights = transformer()
    for name in names:
        weights[name] = np.full_like(weights[name], value)
    builder = Builder(weights)
    return (builder.add_adam(adam(weights)) if moments else builder).evidence()


FIRES_ON = {
    "gains_of_one_block": lambda: filled(1.0, "decoder.layers.3.norm1.weight"),
    "a_matrix": lambda: filled(0.5, "head.weight"),
    "a_bias_that_was_trained": lambda: filled(-4.6, "head.bias", moments=True),
}
SILENT_ON = {
    "gains_of_all_blocks": lambda: filled(
        1.0, *(f"decoder.layers.{block}.norm1.weight" for block in range(6))
    ),
    "focal_bias": lambda: filled(-4.59512, "head.bias"),
    "epoch_zero": epoch_zero,
    "zeros_are_another_rule": lambda: filled(0.0, "head.weight"),
}
