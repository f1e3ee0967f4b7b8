from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools import layouts
from ckptools.rerun.arms import ArmPlan
from ckptools.rerun.loading import SavedState
from ckptools.rerun.resume import counts_epochs, resume
from ckptools.rerun.task import load_task
from ckptools.rerun.trials import Bench, Experiment, TrialSpec
from ckptools.types.verdict import Trial
from tests.builders.rerun_tasks import TASK, regression, train, write_task


def saved_as(path: Path, **changes: Any) -> Path:
    """Write the checkpoint anew with other entries; a mapping is merged into the one there."""
    state = torch.load(path, weights_only=True)
    for key, value in changes.items():
        state[key] = {**state[key], **value} if isinstance(value, dict) else value
    torch.save(state, path)
    return path


def trained(spec: str, later: Path, steps: int = 4) -> tuple[Trial, list[float]]:
    """Return a trial, and the learning rates that the arm starts with."""
    bench = Bench(Experiment(spec, str(later)))
    arm, saved = bench.arm(ArmPlan("as-is"))
    optimizer, _, _, _ = resume(bench.task, bench.model, arm, saved=saved)
    found = bench.run(TrialSpec(bench.experiment, ArmPlan("as-is"), 0, steps))
    return found, [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("count", "epoch", "steps", "answer"),
    [
        (12, 11, 768.0, True),
        (12, 12, None, True),  # SGD keeps no steps
        (768, 11, 768.0, False),
        (12, None, 768.0, True),
        (12, None, 12.0, False),
        (12, None, None, False),
        (40, 3, 768.0, False),  # not the epochs' counter
        (None, 11, 768.0, False),
    ],
)
def test_a_counter_of_epochs_is_told_from_one_of_steps(
    tmp_path: Path, count: int | None, epoch: int | None, steps: float | None, answer: bool
) -> None:
    (tmp_path / "x").mkdir()
    _, _, later = regression(tmp_path / "x")
    state = torch.load(later, weights_only=True)
    del state["step"]
    torch.save(state | ({} if epoch is None else {"epoch": epoch}), later)
    checkpoint = layouts.open(later)
    slots = {"a": {} if steps is None else {"step": torch.tensor(steps)}}
    if steps is None:
        checkpoint = type(checkpoint)(
            **{f: getattr(checkpoint, f) for f in ("path", "container", "layout", "weight_sets")},
            run=type(checkpoint.run)(epoch=epoch),
        )
    assert counts_epochs(SavedState(slots, (), {"last_epoch": count}), checkpoint) is answer


def test_a_schedule_of_epochs_does_not_move_within_a_few_steps(tmp_path: Path) -> None:
    """Stepped once a step it would have cut the rate by 27 after twelve."""
    text = TASK.replace(
        "torch.optim.lr_scheduler.LambdaLR(optimizer, rise)",
        "torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.3)",
    )
    spec = f"{write_task(tmp_path, text)}:Regression"
    (later,) = train(load_task(spec), tmp_path, (60,))
    rate = {"lr": 0.01, "initial_lr": 0.01}
    state = torch.load(later, weights_only=True)
    groups = [{**group, **rate} for group in state["optimizer"]["param_groups"]]
    saved_as(later, epoch=2, optimizer={"param_groups": groups})
    moving, rates = trained(spec, later)
    assert rates == [0.01]
    saved_as(later, scheduler={"last_epoch": 2, "_last_lr": [0.01]})
    still, _ = trained(spec, later)
    assert any("counts epochs" in note for note in still.notes)
    assert not any("counts epochs" in note for note in moving.notes)
    assert still.update_ratio[-1] > 3.0 * moving.update_ratio[-1]


def test_a_schedule_that_waits_for_validation_stays(tmp_path: Path) -> None:
    text = TASK.replace(
        "torch.optim.lr_scheduler.LambdaLR(optimizer, rise)",
        "torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)",
    )
    spec = f"{write_task(tmp_path, text)}:Regression"
    bench = Bench(Experiment(spec, str(regression_without_schedule(tmp_path))))
    found = bench.run(TrialSpec(bench.experiment, ArmPlan("x", start="scratch"), 0, 3))
    assert found.steps == 3
    assert any("validation values" in note for note in found.notes)


def regression_without_schedule(folder: Path) -> Path:
    other = folder / "run"
    other.mkdir()
    _, _, later = regression(other)
    return later


def test_a_schedule_at_its_end_stays_there(tmp_path: Path) -> None:
    text = TASK.replace(
        "torch.optim.lr_scheduler.LambdaLR(optimizer, rise)",
        "torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=62)",
    )
    spec = f"{write_task(tmp_path, text)}:Regression"
    (later,) = train(load_task(spec), tmp_path, (60,))
    found, _ = trained(spec, later, 6)
    assert found.steps == 6
    assert any("at its end" in note for note in found.notes)
