from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from ckptools import layouts
from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.pairs import Fault, evidence, run
from tests.builders.small_run import State


def setting(name: str, value: Any, *groups: int) -> Fault:
    def edit(state: State) -> None:
        for group in groups:
            state["optimizer"]["param_groups"][group][name] = value

    return edit


def one_group_less(state: State) -> None:
    first, second = state["optimizer"]["param_groups"]
    first["params"] = [*first["params"], *second["params"]]
    state["optimizer"]["param_groups"] = [first]


def another_run(state: State) -> None:
    generator = torch.Generator().manual_seed(7)
    for tensor in state["model"].values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    setting("weight_decay", 0.3, 0)(state)


def on_a_schedule() -> Evidence:
    """Return evidence in which the weight decay had moved in the epoch before, too."""
    found = evidence(setting("weight_decay", 0.02, 0))
    before = layouts.open(str(run()[3]))
    first = before.optimizers[0]
    groups = tuple(replace(g, settings={**g.settings, "weight_decay": 0.005}) for g in first.groups)
    older = replace(before, optimizers=(replace(first, groups=groups),))
    return replace(found, earlier=(*found.earlier, Evidence(older)))


FIRES_ON: dict[str, Callable[[], Evidence]] = {
    "weight_decay": partial(evidence, setting("weight_decay", 0.1, 0)),
    "eps": partial(evidence, setting("eps", 1e-6, 0, 1)),
    "amsgrad": partial(evidence, setting("amsgrad", True, 1)),
}
SILENT_ON: dict[str, Callable[[], Evidence]] = {
    "a_healthy_epoch": evidence,
    "another_rate": partial(evidence, setting("lr", 1.0, 0, 1)),
    "betas_that_a_scheduler_cycles": partial(evidence, setting("betas", (0.85, 0.999), 0, 1)),
    "a_schedule": on_a_schedule,
    "another_run": partial(evidence, another_run),
    "the_first_epoch": partial(evidence, newer=1, older=0),
}


def test_groups_that_changed_alike_are_one_finding() -> None:
    (finding,) = judge(evidence(setting("eps", 1e-6, 0, 1)), select=["RUN113"]).findings
    assert finding.message == "eps was 1e-08 and is 1e-06; parameter groups: 0, 1"
    assert finding.evidence["groups"] == [0, 1]


@pytest.mark.parametrize("fault", [one_group_less])
def test_a_group_that_is_gone_says_nothing_of_settings(fault: Fault) -> None:
    assert not judge(evidence(fault), select=["RUN113"]).findings
