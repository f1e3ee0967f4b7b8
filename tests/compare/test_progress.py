from __future__ import annotations

import pytest

from ckptools.compare.clipping import limit_in
from ckptools.compare.progress import argument, arguments, multiple
from ckptools.types.checkpoint import RunState


@pytest.mark.parametrize(
    ("value", "count", "expected"),
    [(240, 60, 4), (121, 60, 2), (60, 60, None), (90, 60, None), (10_000, 60, None), (5, 0, None)],
)
def test_multiples(value: float, count: float, expected: int | None) -> None:
    assert multiple(value, count) == expected


def run(**values: object) -> RunState:
    return RunState(hyperparameters=dict(values))


def test_arguments_are_found_at_any_depth() -> None:
    saved = run(a=1, trainer={"Steps-Per-Epoch": 12, "deeper": {"b": True}})
    assert dict(arguments(saved)) == {
        "a": 1,
        "trainer.Steps-Per-Epoch": 12,
        "trainer.deeper.b": True,
    }
    assert argument(saved, {"steps_per_epoch"}) == ("trainer.Steps-Per-Epoch", 12.0)
    assert argument(saved, {"b"}) is None


@pytest.mark.parametrize(
    ("saved", "limit"),
    [
        (run(max_grad_norm=1.0), 1.0),
        (run(optimizer_config={"grad_clip": {"max_norm": 35, "norm_type": 2}}), 35.0),
        (run(clip=35.0), 35.0),
        (run(clip=True), None),
        (run(clip=3), None),
        (run(max_norm=5.0), None),
        (run(max_grad_norm=0.0), None),
        (run(max_grad_norm=float("inf")), None),
        (run(clip_grad=0.01, clip_mode="agc"), None),
        (run(gradient_clip_val=0.5, gradient_clip_algorithm="value"), None),
        (run(gradient_clip_val=0.5, gradient_clip_algorithm="norm"), 0.5),
    ],
)
def test_clips_in_arguments(saved: RunState, limit: float | None) -> None:
    found = limit_in(saved)
    assert (None if found is None else found[1]) == limit
