from __future__ import annotations

from ckptools.rules import judge
from ckptools.types.checkpoint import RunState
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import adam, adapter, epoch_zero, fresh_transformer, transformer

MATRIX = "decoder.layers.2.self_attn.o_proj.weight"


def zeroed(*names: str, moments: bool = False) -> Evidence:
    weights = transformer()
    for name in names:
        weights[name] = weights[name] * 0.0
    builder = Builder(weights)
    return (builder.add_adam(adam(weights)) if moments else builder).evidence()


FIRES_ON = {
    "a_matrix_of_a_block": lambda: zeroed(MATRIX),
    "a_bias_of_a_block": lambda: zeroed("decoder.layers.2.linear1.bias"),
    "a_matrix_outside": lambda: zeroed("head.weight"),
    "a_bias_that_was_trained": lambda: zeroed("head.bias", moments=True),
}
SILENT_ON = {
    "a_bias_outside": lambda: zeroed("head.bias"),
    "a_bias_that_all_blocks_lack": lambda: zeroed(
        *(f"decoder.layers.{block}.linear1.bias" for block in range(6))
    ),
    "adapter": adapter,
    "epoch_zero": epoch_zero,
    "before_training_without_an_epoch": lambda: Builder(
        fresh_transformer(), run=RunState()
    ).evidence(),
}


def test_says_why() -> None:
    (finding,) = judge(zeroed(MATRIX), select=["NUM106"]).findings
    assert finding.target == MATRIX
    assert "most of the other blocks" in finding.message
    (finding,) = judge(zeroed("head.bias", moments=True), select=["NUM106"]).findings
    assert "the optimizer remembers" in finding.message


def test_a_block_is_one_finding() -> None:
    names = [name for name in transformer() if name.startswith("decoder.layers.4.")]
    (finding,) = judge(zeroed(*names), select=["NUM106"]).findings
    assert finding.target == "decoder.layers.4"
