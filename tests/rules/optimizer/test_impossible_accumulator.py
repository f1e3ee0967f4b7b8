from __future__ import annotations

from functools import partial

import pytest

from ckptools.rules import judge
from tests.builders.moment_files import State, evidence, slots

WEIGHT = "layers.1.linear1.weight"


def lowered_maximum(held: State) -> None:
    own = slots(held, WEIGHT)
    own["max_exp_avg_sq"].copy_(own["max_exp_avg_sq"] * 0.999)


def lowered_sum(held: State) -> None:
    slots(held, WEIGHT)["sum"].view(-1)[3] = 0.0999


def shrunk_largest(held: State) -> None:
    own = slots(held, WEIGHT)
    own["exp_inf"] *= float(own["exp_avg"].abs().max() / own["exp_inf"].max()) / 100


def grown_buffer(held: State) -> None:
    slots(held, WEIGHT)["momentum_buffer"].view(-1)[3] = 101.0


def cycled(held: State) -> None:
    shrunk_largest(held)
    held["optimizer"]["param_groups"][0]["max_momentum"] = 0.95


FIRES_ON = {
    "AMSGrad": partial(evidence, lowered_maximum, "AMSGrad"),
    "Adagrad": partial(evidence, lowered_sum, "Adagrad"),
    "Adamax": partial(evidence, shrunk_largest, "Adamax"),
    "RMSprop": partial(evidence, grown_buffer, "RMSprop"),
    "unsure": partial(evidence, cycled, "Adamax"),
}
SILENT_ON = {
    kind: partial(evidence, None, kind)
    for kind in ("AMSGrad", "Adagrad", "Adamax", "RMSprop", "AdamW", "SGD")
} | {f"{kind} after one step": partial(evidence, None, kind, steps=1) for kind in FIRES_ON}
del SILENT_ON["unsure after one step"]


@pytest.mark.parametrize("kind", ["AMSGrad", "Adagrad", "Adamax", "RMSprop"])
def test_a_contradiction_is_a_proof(kind: str) -> None:
    (finding,) = judge(FIRES_ON[kind](), select=["OPT113"]).findings
    assert (finding.target, finding.confidence) == (WEIGHT, "proof")


def test_a_failed_premise_is_named() -> None:
    (finding,) = judge(FIRES_ON["unsure"](), select=["OPT113"]).findings
    assert finding.confidence == "hint"
    assert "scheduler" in finding.message
