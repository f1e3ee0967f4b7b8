from __future__ import annotations

from functools import partial

import pytest

from ckptools.compare import clipping
from ckptools.rules import judge
from tests.builders.moment_files import State, evidence, later, slots

CLIP = {"max_grad_norm": 0.5}


def grown(held: State) -> None:
    """Add to one element of v what the last steps cannot have added."""
    slots(held, "head.weight")["exp_avg_sq"][0, 0] += 0.5**2


def turned(held: State) -> None:
    slots(held, "head.weight")["exp_avg"].add_(0.2)


FIRES_ON = {
    "a_smaller_argument": partial(later, args={"max_grad_norm": 0.4}),
    "a_smaller_limit": partial(later, limits={"OPT116": 0.499}),
    "a_second_moment": partial(later, grown, args=CLIP),
    "a_first_moment": partial(later, turned, args=CLIP),
    "one_step": partial(later, limits={"OPT116": 0.499}, steps=1),
}
SILENT_ON = {
    "no_clip": later,
    "at_the_clip": partial(later, args=CLIP),
    "at_the_limit": partial(later, limits={"OPT116": 0.5}),
    "one_step_at_the_limit": partial(later, limits={"OPT116": 0.5}, steps=1),
    "below_it": partial(later, clip=None, args={"max_grad_norm": 35.0}),
    "one_file": partial(evidence, clip=0.5, args={"max_grad_norm": 0.1}),
}


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 60])
def test_a_limit_is_proof_and_close(steps: int) -> None:
    (finding,) = judge(later(limits={"OPT116": 0.499}, steps=steps), select=["OPT116"]).findings
    assert (finding.confidence, finding.severity) == ("proof", "error")
    assert 1 < finding.evidence["ratio"] < 1.003
    assert finding.evidence["steps"] == steps


def test_an_argument_is_assumed() -> None:
    (finding,) = judge(later(args={"max_grad_norm": 0.4}), select=["OPT116"]).findings
    assert (finding.confidence, finding.severity) == ("hint", "warning")
    assert "max_grad_norm" in finding.message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decoupled_weight_decay": False, "weight_decay": 0.1}, "weight decay"),
        ({"max_momentum": 0.95, "base_momentum": 0.85}, "beta"),
    ],
)
def test_premises_that_fail_are_named(settings: dict[str, object], words: str) -> None:
    told = judge(later(settings=settings, limits={"OPT116": 0.1}), select=["OPT116"]).findings
    assert [finding.confidence for finding in told] == ["hint"]
    assert words in told[0].message


def test_a_part_of_the_parameters_keeps_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    found = later(limits={"OPT116": 0.5})
    (whole,) = clipping.clipped_since(found.changes[0])
    assert whole.even
    monkeypatch.setattr(clipping, "MOST", 2000)
    (part,) = clipping.clipped_since(found.changes[0])
    assert not part.even
    assert 0 < part.norm < whole.norm
    assert not part.against(0.5).above


def test_skipped_steps_loosen_the_bound() -> None:
    def skipping(held: State) -> None:
        slots(held, "head.weight")["step"] -= 7

    (one,) = clipping.clipped_since(later(skipping).changes[0])
    assert not one.even
    assert one.steps == 20
