from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.moment_files import State, evidence, slots


def one_behind(held: State) -> None:
    slots(held, "head.weight")["step"] -= 1


FIRES_ON = {
    "as_stated": partial(evidence, clip=0.3, args={"grad_clip": 0.3}),
    "a_usual_clip": partial(evidence, clip=0.5),
}
SILENT_ON = {
    "no_clip": evidence,
    "a_clip_out_of_reach": partial(evidence, args={"grad_clip": 500.0}),
    "an_unusual_clip_unstated": partial(evidence, clip=0.3),
    "skipped_steps": partial(evidence, one_behind, clip=0.5),
    "few_steps": partial(evidence, clip=0.5, steps=5),
}


def test_it_is_a_note_with_the_share() -> None:
    (finding,) = judge(FIRES_ON["as_stated"](), select=["OPT112"]).findings
    assert finding.severity == "note"
    assert finding.evidence["clip"] == 0.3
    assert finding.evidence["unclipped_share"] < 0.01
