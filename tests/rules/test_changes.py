"""What rules on change share: a matrix that outran its siblings is told from a young one."""

from __future__ import annotations

import pytest

from ckptools.compare.bounds.result import BoundResult
from ckptools.rules.changes import outran, rms_change, violated
from ckptools.types.change import Change, Match, Relation, StateChange


def match(name: str, norm: float, relative: float, numel: int = 100) -> Match:
    return Match(
        name, name, "model", numel=numel, dimensions=2, relative_change=relative, norm_a=norm
    )


def change(*matches: Match) -> Change:
    return Change(None, None, Relation("same-run", "sure", 1), matches)  # type: ignore[arg-type]


USUAL = [match(f"blocks.{number}.weight", 10.0, 0.01) for number in range(5)]


def test_the_change_of_an_element() -> None:
    assert rms_change(match("a", norm=10.0, relative=0.5)) == pytest.approx(0.5)
    assert rms_change(match("a", norm=0.0, relative=0.5)) is None


def test_a_young_matrix_turns_far_without_outrunning() -> None:
    young = match("lora_B.weight", norm=0.1, relative=1.5)
    overwritten = match("proj.weight", norm=10.0, relative=1.5)
    assert outran([young, overwritten], change(*USUAL, young, overwritten)) == [overwritten]


def test_frozen_matrices_do_not_say_what_is_usual() -> None:
    frozen = [match(f"base.{number}.weight", 10.0, 0.0) for number in range(9)]
    adapters = [match(f"lora_B.{number}", 0.1, 1.0) for number in range(5)]
    assert outran(adapters, change(*frozen, *adapters)) == []


def test_betas_that_move_make_a_bound_inexact() -> None:
    def state(ratio: float, *failed: str) -> StateChange:
        result = BoundResult("innovation", ratio, 0, above=1, judged=100, failed=failed)
        return StateChange(0, 0, "a", bounds={"innovation": result})

    assert violated(state(1.2), ("innovation",))
    assert violated(state(1.2, "learning-rate-assumed"), ("innovation",))
    assert not violated(state(1.2, "betas-cycled"), ("innovation",))
    assert violated(state(1.6, "betas-cycled", "betas-changed"), ("innovation",))


def test_without_siblings_nothing_is_excused() -> None:
    alone = match("lora_B.weight", norm=0.1, relative=1.5)
    assert outran([alone], change(alone)) == [alone]
