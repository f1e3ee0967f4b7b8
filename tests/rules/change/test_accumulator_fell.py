from __future__ import annotations

from functools import partial

import pytest

from ckptools.rules import judge
from tests.builders.moment_files import State, pair, slots

WEIGHT = "layers.1.linear1.weight"
SLOTS = {
    "Adagrad": "sum",
    "RMSprop": "square_avg",
    "Adamax": "exp_inf",
    "AMSGrad": "max_exp_avg_sq",
}


def fallen(kind: str, held: State) -> None:
    slots(held, WEIGHT)[SLOTS[kind]].mul_(0.9)


def risen(held: State) -> None:
    slots(held, WEIGHT)["max_exp_avg_sq"].mul_(1.1)


FIRES_ON = {kind: partial(pair, partial(fallen, kind), kind) for kind in SLOTS}
FIRES_ON["a_risen_maximum"] = partial(pair, risen, "AMSGrad")
SILENT_ON = {kind: partial(pair, None, kind) for kind in (*SLOTS, "AdamW", "SGD")}


@pytest.mark.parametrize("kind", FIRES_ON)
def test_it_is_a_proof(kind: str) -> None:
    (finding,) = judge(FIRES_ON[kind](), select=["CHG113"]).findings
    assert (finding.target, finding.confidence) == (WEIGHT, "proof")
