from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from ckptools.rerun.environment import LIMIT, changed_totals, changed_weights, environment


def checkpoint(epoch: int | None = 3, **saved: Any) -> Any:
    return SimpleNamespace(
        path="run/3.pth", run=SimpleNamespace(epoch=epoch, hyperparameters=saved)
    )


def task(then: dict[str, float], **parts: Any) -> Any:
    return SimpleNamespace(logged={3: then}, weights=lambda: {"a": 1.0}, **parts)


@pytest.mark.parametrize(
    ("now", "then", "changed"),
    [
        (2.0, 2.0, False),
        (2.0 * math.exp(LIMIT - 0.01), 2.0, False),
        (2.0 * math.exp(LIMIT + 0.01), 2.0, True),
        (2.0 * math.exp(-LIMIT - 0.01), 2.0, True),
        (-3.001, -3.0, False),  # a likelihood
        (-1.0, -3.0, True),
        (0.0, 0.0, False),
        (math.nan, 2.0, True),
        (math.nan, math.nan, False),
    ],
)
def test_a_logged_loss_comes_back_or_it_does_not(now: float, then: float, changed: bool) -> None:
    rung = environment(task({"loss": then}), checkpoint(), {"loss": now})
    assert rung.answered is changed


def test_without_a_logged_loss_nothing_is_said() -> None:
    for epoch in (None, 4):
        rung = environment(task({"loss": 9.0}), checkpoint(epoch), {"loss": 1.0})
        assert (rung.answered, rung.effect) == (False, None)


def test_a_total_that_does_not_come_back_where_its_terms_do() -> None:
    then = {"loss": 1.0, "a": 1.0, "total": 5.0}
    assert changed_totals(task(then), checkpoint(), then | {"total": 9.0}) == [("total", 9.0, 5.0)]
    assert changed_totals(task(then), checkpoint(), then) == []
    assert changed_totals(task(then), checkpoint(), then | {"total": 9.0, "a": 2.0}) == []


def test_saved_settings_under_which_terms_weigh_otherwise() -> None:
    def made(settings: dict[str, Any]) -> Any:
        weights = {"a": 1.0, "b": settings["aux"]}
        return SimpleNamespace(
            settings=settings, weights=lambda: weights, again=lambda other: made(settings | other)
        )

    now = made({"aux": 0.3})
    assert changed_weights(now, checkpoint(aux=0.1, lr=1.0)) == [("b", 0.3, 0.1)]
    assert changed_weights(now, checkpoint(aux=0.3)) == []
    assert changed_weights(now, checkpoint()) == []
