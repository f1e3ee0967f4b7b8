from __future__ import annotations

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import half_transformer, transformer

NAME = "decoder.layers.3.linear1.weight"


def scaled(factor: float, dtype: str) -> Evidence:
    weights = transformer()
    weights[NAME] = weights[NAME] * factor
    return Builder(weights, dtype=dtype).evidence()


FIRES_ON = {
    "small_in_half": lambda: scaled(1e-4, "float16"),
    "decayed_to_death": lambda: scaled(1e-38, "float32"),
}
SILENT_ON = {
    "usual_in_half": half_transformer,
    "the_same_in_bfloat": lambda: scaled(1e-4, "bfloat16"),
}


def test_limit_is_the_users() -> None:
    evidence = scaled(2e-2, "float16")
    assert judge(evidence, select=["NUM105"]).findings == ()
    stricter = Evidence(evidence.checkpoint, evidence.measurements, limits={"NUM105": 0.01})
    (finding,) = judge(stricter, select=["NUM105"]).findings
    assert finding.limit == 0.01
