from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import adapter, transformer

NAME = "decoder.layers.2.self_attn.o_proj.weight"


def of_rank(rank: int, name: str = NAME, noise: float = 0.0) -> Evidence:
    weights = transformer(width=48)
    rng = np.random.default_rng(1)
    rows, columns = weights[name].shape
    low = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
    low *= weights[name].std() / low.std()
    weights[name] = low + noise * rng.normal(size=low.shape)
    return Builder(weights, spectrum=True).evidence()


FIRES_ON = {
    "rank_one_with_noise": lambda: of_rank(1, noise=0.01),
    "rank_one": lambda: of_rank(1),
    "effective_rank_of_a_block": lambda: of_rank(6),
}
SILENT_ON = {"adapters_are_low": adapter, "a_little_lower": lambda: of_rank(40)}


def test_skipped_without_singular_values() -> None:
    judgement = judge(Builder(transformer()).evidence(), select=["SPR103"])
    assert "--spectrum" in judgement.skipped[0].reason


def test_names_the_matrix() -> None:
    (finding,) = judge(of_rank(1), select=["SPR103"]).findings
    assert finding.target == NAME
    assert finding.evidence["stable_rank"] < 1.1
