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


def trained_in_bf16() -> Evidence:
    """Return gains that stay at one because updates round away, though gradients reached them."""
    weights = transformer()
    for name, values in weights.items():
        if "norm" in name and name.endswith("weight"):
            weights[name] = np.ones_like(values)
    return Builder(weights, dtype="bfloat16").add_adam(adam(weights)).evidence()


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
    "trained_in_bf16": trained_in_bf16,
    "zeros_are_another_rule": lambda: filled(0.0, "head.weight"),
}
