from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.pairs import FC1
from tests.builders.resumes import evidence, saved
from tests.builders.small_run import State, position, slots


def without_second(state: State) -> None:
    del slots(state, FC1)["exp_avg_sq"]


def cut(state: State) -> None:
    own = slots(state, FC1)
    own["exp_avg"] = own["exp_avg"][:-1].clone()


def emptied(state: State) -> None:
    state["optimizer"]["state"] = {}


def zeroed(state: State) -> None:
    for own in state["optimizer"]["state"].values():
        own["exp_avg"].zero_()
        own["exp_avg_sq"].zero_()


def never_trained(state: State) -> None:
    emptied(state)
    state["epoch"] = state["global_step"] = 0


def one_without(state: State) -> None:
    del state["optimizer"]["state"][position(state, FC1)]


def plain_sgd() -> object:
    import torch

    weights = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.1)
    return saved({"model": weights.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})


FIRES_ON = {
    "a_slot": partial(evidence, without_second),
    "a_shape": partial(evidence, cut),
    "everything": partial(evidence, emptied),
    "zeros": partial(evidence, zeroed),
}
SILENT_ON = {
    "a_healthy_epoch": evidence,
    "before_training": partial(evidence, never_trained),
    "a_parameter_without_gradient": partial(evidence, one_without),
    "sgd_without_momentum": plain_sgd,
}


def test_names_the_state_and_the_slot() -> None:
    (finding,) = judge(evidence(without_second), select=["RUN103"]).findings
    assert finding.target == FC1
    assert finding.evidence["slots"] == ["exp_avg_sq"]


def test_an_empty_optimizer_is_one_finding() -> None:
    (finding,) = judge(evidence(emptied), select=["RUN103"]).findings
    assert finding.target == "optimizer"
