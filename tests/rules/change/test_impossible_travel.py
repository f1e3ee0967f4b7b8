from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.moment_files import State, compared, pair, state

WEIGHT = "layers.1.linear1.weight"
LR = 1e-3


def far(held: State) -> None:
    held["model"][WEIGHT].view(-1)[3] += 0.5


def a_little(held: State) -> None:
    """A tenth of one element's step is enough for a replay."""
    held["model"][WEIGHT].view(-1)[3] += 1e-4


def lion(step: int, fault: bool = False) -> State:
    """Return a file of Lion after so many steps of one sign."""
    names = list(state()["model"])
    generator = torch.Generator().manual_seed(0)
    model = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in state()["model"].items()
    }
    for _ in range(step):
        for value in model.values():
            value.mul_(1 - LR * 0.1).sub_(LR * value.sign())
    if fault:
        model[WEIGHT].view(-1)[3] += 0.1
    group = {"lr": LR, "betas": (0.9, 0.99), "weight_decay": 0.1}
    group |= {"params": list(range(len(names))), "param_names": names}
    states = {i: {"exp_avg": torch.ones(model[name].shape)} for i, name in enumerate(names)}
    optimizer = {"state": states, "param_groups": [group]}
    return {"model": model, "optimizer": optimizer, "global_step": step + 1, "epoch": 1}


def lions(fault: bool) -> Evidence:
    return compared(lion(10), lion(20, fault))


FIRES_ON = {
    "SGD": partial(pair, a_little, "SGD"),
    "Adagrad": partial(pair, far, "Adagrad"),
    "Lion": partial(lions, True),
}
SILENT_ON = {kind: partial(pair, None, kind) for kind in ("SGD", "Adagrad", "RMSprop", "AdamW")}
SILENT_ON["Lion"] = partial(lions, False)


@pytest.mark.parametrize("kind", FIRES_ON)
def test_names_the_weight(kind: str) -> None:
    findings = judge(FIRES_ON[kind](), select=["CHG112"]).findings
    assert [finding.target for finding in findings] == [WEIGHT]


def test_a_replayed_step_needs_no_learning_rate() -> None:
    (finding,) = judge(pair(a_little, "SGD"), select=["CHG112"]).findings
    assert finding.confidence == "proof"


def test_an_assumed_learning_rate_makes_a_hint() -> None:
    (finding,) = judge(pair(far, "Adagrad"), select=["CHG112"]).findings
    assert finding.confidence == "hint"
    assert "learning rate" in finding.message


def test_a_falling_schedule_makes_it_a_proof() -> None:
    def scheduled(held: State) -> State:
        falling: dict[str, Any] = {"gamma": 0.9, "base_lrs": [LR], "last_epoch": 3}
        return held | {"scheduler": falling}

    from tests.builders.moment_files import following

    newer = scheduled(following("Adagrad"))
    far(newer)
    (finding,) = judge(compared(scheduled(state("Adagrad")), newer), select=["CHG112"]).findings
    assert finding.confidence == "proof"
