from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import masked, transformer

NAME = "decoder.layers.0.linear1.weight"


def planted(value: float, *names: str) -> Evidence:
    weights = transformer()
    for name in names:
        weights[name].reshape(-1)[3] = value
    return Builder(weights).evidence()


def everything_nan() -> Evidence:
    return planted(np.nan, *transformer())


def one_infinite_bias() -> Evidence:
    weights = transformer()
    weights["head.bias"][:] = 0.0
    weights["head.bias"][2] = -np.inf
    return Builder(weights).evidence()


def overflowed_half() -> Evidence:
    weights = transformer()
    weights[NAME][0, 0] = 7e4
    return Builder(weights, dtype="float16").evidence()


FIRES_ON = {
    "nan": lambda: planted(np.nan, NAME),
    "inf": lambda: planted(np.inf, NAME),
    "one_infinite_bias": one_infinite_bias,
    "overflowed_half": overflowed_half,
    "everything": everything_nan,
}
SILENT_ON = {"masks": masked}


def test_names_the_tensor_and_counts() -> None:
    (finding,) = judge(planted(np.nan, NAME), select=["NUM101"]).findings
    assert finding.target == NAME
    assert finding.severity == "error"
    assert finding.confidence == "proof"
    assert finding.evidence["nan"] == 1
    assert finding.evidence["inf"] == 0


def test_restores_from_the_earlier_checkpoint_when_there_is_one() -> None:
    earlier = Builder(transformer()).evidence()
    evidence = planted(np.nan, NAME)
    (finding,) = judge(
        Evidence(evidence.checkpoint, evidence.measurements, earlier=(earlier,)), select=["NUM101"]
    ).findings
    assert finding.advice == (
        f"ckptools repair checkpoint_epoch_12.pth --module {NAME} --from checkpoint_epoch_12.pth"
    )


def test_one_finding_for_a_run_that_diverged() -> None:
    (finding,) = judge(everything_nan(), select=["NUM101"]).findings
    assert finding.target == "model"
    assert finding.evidence["tensors"] == len(transformer())


def test_a_block_is_one_finding() -> None:
    names = [name for name in transformer() if name.startswith("decoder.layers.2.")]
    (finding,) = judge(planted(np.nan, *names), select=["NUM101"]).findings
    assert finding.target == "decoder.layers.2"


def test_two_sets_with_the_same_names_are_told_apart() -> None:
    weights, averaged = transformer(), transformer()
    averaged[NAME][0, 0] = np.nan
    builder = Builder(weights).add_set("ema", averaged)
    (finding,) = judge(builder.evidence(), select=["NUM101"]).findings
    assert finding.target == f"ema:{NAME}"
