from __future__ import annotations

from functools import partial

import torch

from ckptools.rules import judge
from tests.builders.moment_files import State, evidence, slots

OUT = "layers.2.linear2.weight"


def one_element(held: State) -> None:
    values = slots(held, OUT)["exp_avg"].view(-1)
    values[5] += values.norm() * 0.05


def negated_row(held: State) -> None:
    slots(held, OUT)["exp_avg"][3] *= -1


def shuffled(held: State) -> None:
    generator = torch.Generator().manual_seed(0)
    for own in held["optimizer"]["state"].values():
        flat = own["exp_avg"].view(-1)
        flat.copy_(flat[torch.randperm(flat.numel(), generator=generator)])


def scaled(held: State) -> None:
    for own in held["optimizer"]["state"].values():
        own["exp_avg"] *= 0.5


FIRES_ON = {
    "one_element": partial(evidence, one_element),
    "a_negated_row": partial(evidence, negated_row),
    "shuffled": partial(evidence, shuffled),
}
SILENT_ON = {
    "a_healthy_file": evidence,
    "after_one_step": partial(evidence, steps=1),
    "all_scaled": partial(evidence, scaled),
    "sgd": partial(evidence, None, "SGD"),
}


def test_names_the_parameter() -> None:
    for fault in (one_element, negated_row):
        (finding,) = judge(evidence(fault), select=["OPT114"]).findings
        assert finding.target == OUT


def test_a_shuffle_of_everything_is_one_finding() -> None:
    (finding,) = judge(evidence(shuffled), select=["OPT114"]).findings
    assert finding.target == "optimizer"
    assert len(finding.evidence["states"]) >= 8
