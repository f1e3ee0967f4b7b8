"""Which axis of a first moment must sum to zero, and what is read for it."""

from __future__ import annotations

import numpy as np
import pytest

from ckptools.compare import zero_sums
from ckptools.compare.zero_sums import Outputs
from ckptools.types.checkpoint import WeightSet
from tests.builders.evidence import Builder
from tests.builders.moment_files import pair


def weights(**shapes: tuple[int, ...]) -> WeightSet:
    named = {name.replace("__", "."): np.ones(shape) for name, shape in shapes.items()}
    return Builder(named).sets[0]


def test_a_linear_layer_counts_its_outputs_first() -> None:
    outputs = Outputs(weights(fc__weight=(8, 4), fc__bias=(8,), out__weight=(4, 4)))
    assert [outputs.axis(name) for name in ("fc.weight", "fc.bias", "out.weight")] == [0, 0, 0]
    assert outputs.axis(None) == 0


def test_transposed_layers_are_known_by_their_biases() -> None:
    outputs = Outputs(weights(fc__weight=(4, 8), fc__bias=(8,), square__weight=(4, 4)))
    assert outputs.axis("fc.weight") == 1
    assert outputs.axis("square.weight") is None
    assert outputs.axis(None) is None


def test_an_embedding_writes_along_its_rows() -> None:
    outputs = Outputs(weights(embed__weight=(40, 8), head__weight=(40, 8)))
    assert outputs.axis("embed.weight") == 1
    assert outputs.axis("head.weight") == 0


def test_a_healthy_step_keeps_every_sum() -> None:
    (change,) = pair().changes
    found = zero_sums.zero_sums(change)
    assert len(found) > 20
    assert max(one.result.ratio or 0.0 for one in found) < 0.1


def test_no_more_is_read_than_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    (change,) = pair().changes
    whole = zero_sums.zero_sums(change)
    monkeypatch.setattr(zero_sums, "BYTES", 1000)
    few = zero_sums.zero_sums(change)
    assert 0 < len(few) < len(whole)
    assert {one.target for one in few} <= {one.target for one in whole}
