"""Counters of the run that a file keeps beside its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckptools import layouts

WEIGHTS = {"fc.weight": torch.ones(2, 2)}


def test_loops_of_lightning_are_counted(tmp_path: Path) -> None:
    loops = {
        "fit_loop": {
            "epoch_loop.batch_progress": {
                "total": {"completed": 33},
                "current": {"completed": 5},
                "is_last_batch": False,
            }
        },
        "validate_loop": {"batch_progress": {"total": {"completed": 9}}},
    }
    saved = {
        "state_dict": WEIGHTS,
        "pytorch-lightning_version": "2.6.6",
        "epoch": 3,
        "global_step": 18,
        "loops": loops,
    }
    torch.save(saved, tmp_path / "last.ckpt")
    run = layouts.open(str(tmp_path / "last.ckpt")).run
    batches = "loops.epoch_loop.batch_progress"
    assert run.counters == {
        "epoch": 3,
        "global_step": 18,
        f"{batches}.total.completed": 33.0,
        f"{batches}.current.completed": 5.0,
        f"{batches}.is_last_batch": 0.0,
    }
    assert "loops" in run.extras


def test_a_step_of_the_optimizer_is_no_counter_of_the_file(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    torch.save({"model": WEIGHTS, "optimizer": optimizer.state_dict()}, tmp_path / "a.pth")
    run = layouts.open(str(tmp_path / "a.pth")).run
    assert run.step == 1
    assert run.counters == {}


@pytest.mark.parametrize(
    ("saved", "epoch"),
    [("12", 12), (12, 12), (-1, None), ("12a", None), ("", None), ("9" * 40, None), (0, 0)],
)
def test_counters_as_people_save_them(saved: object, epoch: int | None, tmp_path: Path) -> None:
    """Arguments of the command line are text; YOLO says -1 when the training is over."""
    torch.save({"epoch": saved, "model": {"a.weight": torch.ones(2)}}, tmp_path / "a.pt")
    run = layouts.open(tmp_path / "a.pt").run
    assert run.epoch == epoch
    assert ("epoch" in run.extras) == (epoch is None)


def test_the_last_record_of_a_history_counts(tmp_path: Path) -> None:
    history = [{"num_updates": 5}, {"num_updates": 9}]
    held = {"model": {"a.weight": torch.ones(2)}, "optimizer_history": history}
    torch.save(held, tmp_path / "a.pt")
    assert layouts.open(tmp_path / "a.pt").run.step == 9
