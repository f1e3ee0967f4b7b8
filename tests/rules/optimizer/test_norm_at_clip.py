from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from ckptools.rules import judge
from tests.builders.moment_files import State, evidence, later, slots


def one_behind(held: State) -> None:
    slots(held, "head.weight")["step"] -= 1


FIRES_ON = {
    "as_stated": partial(evidence, clip=0.3, args={"grad_clip": 0.3}),
    "a_usual_clip": partial(evidence, clip=0.5),
    "the_steps_between_two_files": partial(later, clip=0.5, args={"grad_clip": 0.5}),
}
SILENT_ON = {
    "no_clip": evidence,
    "a_clip_out_of_reach": partial(evidence, args={"grad_clip": 500.0}),
    "an_unusual_clip_unstated": partial(evidence, clip=0.3),
    "skipped_steps": partial(evidence, one_behind, clip=0.5),
    "few_steps": partial(evidence, clip=0.5, steps=5),
    "two_files_without_a_clip": partial(later, clip=None, args={"grad_clip": 500.0}),
}


def test_it_is_a_note_with_the_share() -> None:
    (finding,) = judge(FIRES_ON["as_stated"](), select=["OPT112"]).findings
    assert finding.severity == "note"
    assert finding.evidence["clip"] == 0.3
    assert finding.evidence["unclipped_share"] < 0.01


def test_steps_between_two_files_stand_alone() -> None:
    def switched_on(held: State) -> None:
        """Let the memory of all steps say nothing of a clip."""
        held["args"] = {"grad_clip": 0.5}

    told = judge(later(switched_on, clip=0.5), select=["OPT112"]).findings
    assert [finding.evidence["clip"] for finding in told] == [0.5, 0.5]
    assert "20 steps since" in told[1].message
    few = judge(later(clip=0.5, args={"grad_clip": 0.5}, steps=5), select=["OPT112"]).findings
    assert len(few) == 1


@pytest.mark.parametrize("steps", [math.inf, math.nan, -1.0])
def test_steps_that_are_none(steps: float) -> None:
    def odd(held: State) -> None:
        slots(held, "head.weight")["step"] = torch.tensor(steps)

    assert judge(evidence(odd, clip=0.5), select=["OPT"]).crashed == ()
