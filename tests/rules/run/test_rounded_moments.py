from __future__ import annotations

from functools import partial

import pytest
import torch

from ckptools.rules import judge
from tests.builders.pairs import FC1
from tests.builders.resumes import Fault, evidence
from tests.builders.small_run import State, slots


def cast(dtype: torch.dtype, back: bool, slot: str = "exp_avg") -> Fault:
    def edit(state: State) -> None:
        values = slots(state, FC1)[slot].to(dtype)
        slots(state, FC1)[slot] = values.float() if back else values

    return edit


def half_weights(state: State) -> None:
    for name, value in state["model"].items():
        state["model"][name] = value.bfloat16()
    for own in state["optimizer"]["state"].values():
        for slot in ("exp_avg", "exp_avg_sq"):
            own[slot] = own[slot].bfloat16()


def powers(state: State) -> None:
    values = slots(state, FC1)["exp_avg"]
    values.copy_(torch.exp2(values.abs().log2().round()))


FIRES_ON = {
    "bfloat16": partial(evidence, cast(torch.bfloat16, False)),
    "through_bfloat16": partial(evidence, cast(torch.bfloat16, True)),
    "through_float16": partial(evidence, cast(torch.float16, True)),
}
SILENT_ON = {
    "a_healthy_epoch": evidence,
    "the_first_epoch": partial(evidence, epoch=1),
    "bfloat16_throughout": partial(evidence, half_weights),
    "few_values": partial(evidence, powers),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_names_type_and_place(dtype: torch.dtype) -> None:
    (finding,) = judge(evidence(cast(dtype, True)), select=["RUN109"]).findings
    assert finding.target == FC1
    assert finding.evidence["dtype"] == str(dtype).removeprefix("torch.")
