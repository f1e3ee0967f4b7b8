"""Offline runs of Weights & Biases, whole, cut and damaged."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptools.errors import CkptoolsError, UnknownFormat
from ckptools.logs import read
from tests.builders import wandb_files
from tests.builders.event_files import field

ROWS = [
    wandb_files.history(
        step,
        {
            "train/loss": step / 4,
            ("val", "loss"): step / 2,
            "d0.loss_cls": 1.5,
            "epoch": step // 10,
            "_timestamp": 1.7e9,
            "_runtime": 3,
            "note": "text",
        },
    )
    for step in (1, 20, 300)
]


def test_the_history_is_read(tmp_path: Path) -> None:
    log = read(wandb_files.write(tmp_path / "run-1.wandb", [field(17, b"\x0a\x01a"), *ROWS]))
    assert log.formats == ("wandb",)
    assert [(one.phase, one.epoch, one.step, one.layer, one.term, one.value) for one in log] == [
        row
        for step in (1, 20, 300)
        for row in (
            ("train", step // 10, step, None, "total", step / 4),
            ("val", step // 10, step, None, "total", step / 2),
            ("train", step // 10, step, 0, "cls", 1.5),
        )
    ]


def test_what_is_not_finite(tmp_path: Path) -> None:
    values = {"loss": b"NaN", "grad_norm": "Infinity", "loss_a": b"-Infinity", "bad": b"{"}
    log = read(wandb_files.write(tmp_path / "x", [wandb_files.history(3, values)]))
    assert [one.term for one in log] == ["total", "grad_norm", "a"]
    assert math.isnan(log[0].value)
    assert log[1].value == math.inf
    assert log[2].value == -math.inf


@pytest.mark.parametrize("length", [1, 32_700, 32_748, 32_750, 32_752, 32_754, 32_760, 99_999])
def test_records_across_blocks(length: int, tmp_path: Path) -> None:
    large = wandb_files.history(2, {"note": "x" * length, "loss": 0.5})
    log = read(wandb_files.write(tmp_path / "x", [large, *ROWS, large]))
    assert [one.step for one in log if one.key == "loss"] == [2, 2]
    assert len(log) == 11
    assert log.not_read == ()


def test_a_restart_opens_a_segment(tmp_path: Path) -> None:
    log = read(wandb_files.write(tmp_path / "x", [*ROWS, *ROWS]))
    assert set(log.segment) == {0, 1}


def test_a_cut_file_is_read_up_to_the_cut(tmp_path: Path) -> None:
    path = wandb_files.write(tmp_path / "x", ROWS)
    path.write_bytes(path.read_bytes()[:-3])
    log = read(path)
    assert len(log) == 6
    assert log.not_read == (f"{path}: the last record is cut",)


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(7, 400), st.binary(max_size=40))
def test_damage_gives_clean_errors(tmp_path: Path, at: int, noise: bytes) -> None:
    path = wandb_files.write(tmp_path / "x", ROWS)
    content = path.read_bytes()
    path.write_bytes(content[:at] + noise + content[at + len(noise) :])
    with contextlib.suppress(CkptoolsError):
        read(path)


def test_a_run_without_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat):
        read(wandb_files.write(tmp_path / "x", [field(17, b"")]))
