from __future__ import annotations

import numpy as np

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import adam, trained_transformer, transformer

NAME = "decoder.layers.1.linear2.weight"


def planted(slot: str, value: float, *names: str) -> Evidence:
    weights = transformer()
    slots = adam(weights)
    for name in names:
        slots[name][slot].reshape(-1)[0] = value
    return Builder(weights).add_adam(slots).evidence()


FIRES_ON = {
    "nan_in_the_first_moment": lambda: planted("exp_avg", np.nan, NAME),
    "infinite_second_moment": lambda: planted("exp_avg_sq", np.inf, NAME),
    "everywhere": lambda: planted("exp_avg", np.nan, *transformer()),
}
SILENT_ON = {"healthy_moments": trained_transformer}


def test_names_the_parameter_and_the_slot() -> None:
    (finding,) = judge(planted("exp_avg_sq", np.inf, NAME), select=["NUM102"]).findings
    assert finding.target == NAME
    assert finding.evidence == {"nan": 0, "inf": 1, "slots": ["exp_avg_sq"], "states": 1}


def test_one_finding_for_the_whole_optimizer() -> None:
    (finding,) = judge(planted("exp_avg", np.nan, *transformer()), select=["NUM102"]).findings
    assert finding.target == "optimizer_state_dict"
    assert finding.evidence["states"] == len(transformer())


def test_skipped_without_an_optimizer() -> None:
    judgement = judge(Builder(transformer()).evidence(), select=["NUM102"])
    assert [skipped.reason for skipped in judgement.skipped] == ["no optimizer state was measured"]
