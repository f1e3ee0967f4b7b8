from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.checkpoint import RunState
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import after_one_step, epoch_zero, fresh_transformer, start, transformer


def reset(*names: str, epoch: int | None = 12) -> Evidence:
    weights = transformer()
    rng = np.random.default_rng(3)
    for name in names:
        weights[name] = start(rng, *weights[name].shape)
    return Builder(weights, run=RunState(epoch=epoch)).evidence()


def fresh(epoch: int | None) -> Evidence:
    return Builder(fresh_transformer(), run=RunState(epoch=epoch)).evidence()


NAME = "decoder.layers.4.linear1.weight"
FIRES_ON = {
    "one_matrix": lambda: reset(NAME),
    "two_matrices": lambda: reset(NAME, "decoder.layers.4.linear2.weight"),
    "a_whole_file": lambda: fresh(3),
    "a_whole_file_of_unknown_epoch": lambda: fresh(None),
}
SILENT_ON = {
    "epoch_zero": epoch_zero,
    "after_one_step": after_one_step,
    "many_are_slow_early_on": lambda: reset(
        *[name for name in transformer() if "self_attn" in name and name.endswith("weight")][:12]
    ),
}


def test_names_the_matrix_and_the_initialiser() -> None:
    (finding,) = judge(reset(NAME), select=["SPR105"]).findings
    assert finding.target == NAME
    assert finding.evidence["initializers"] == ["kaiming_uniform(a=√5)"]


def test_once_for_a_file() -> None:
    (finding,) = judge(fresh(3), select=["SPR105"]).findings
    assert (finding.target, finding.severity) == ("model", "note")


def test_a_layer_that_was_reset_is_one_finding() -> None:
    weights = transformer()
    weights[NAME] = start(np.random.default_rng(3), *weights[NAME].shape)
    weights["decoder.layers.4.linear1.bias"] *= 0.0
    judgement = judge(Builder(weights).evidence())
    assert [finding.code for finding in judgement.findings] == ["SPR105"]


def test_a_block_that_was_reset_is_one_finding() -> None:
    weights = transformer()
    fresh = fresh_transformer(seed=5)
    for name in weights:
        if name.startswith("decoder.layers.4."):
            weights[name] = fresh[name]
    (finding,) = judge(Builder(weights).evidence()).findings
    assert (finding.code, finding.target) == ("SPR105", "decoder.layers.4")


def normal(width: int) -> Evidence:
    """Return trained blocks; one matrix has by chance the spread of Glorot's normal draw."""
    rng = np.random.default_rng(7)
    names = [f"blocks.{block}.attn.k.weight" for block in range(6)]
    weights = {name: rng.standard_t(2, (width, width)) * 0.5 for name in names}
    weights[names[2]] = rng.standard_normal((width, width)) / np.sqrt(width)
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    return Builder(weights, run=RunState(epoch=12)).evidence()


def test_a_small_matrix_meets_a_normal_draw_by_chance() -> None:
    assert judge(normal(32), select=["SPR105"]).findings == ()
    (finding,) = judge(normal(128), select=["SPR105"]).findings
    assert finding.target == "blocks.2.attn.k.weight"
