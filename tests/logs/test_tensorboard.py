"""TensorBoard event files, whole, cut and damaged."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptools.errors import CkptoolsError
from ckptools.logs import read
from tests.builders import event_files

EVENTS = [
    event_files.scalar(tag, step, step / 4, tensor=tag.startswith("val"))
    for step in (1, 200, 70000)
    for tag in ("train/loss", "val/loss", "d0.loss_cls")
]


def test_scalars(tmp_path: Path) -> None:
    log = read(event_files.write(tmp_path / "events", EVENTS))
    assert log.formats == ("tensorboard",)
    assert [(one.phase, one.step, one.layer, one.term, one.value) for one in log] == [
        row
        for step in (1, 200, 70000)
        for row in (
            ("train", step, None, "total", step / 4),
            ("val", step, None, "total", step / 4),
            ("train", step, 0, "cls", step / 4),
        )
    ]


def test_a_cut_file_is_read_up_to_the_cut(tmp_path: Path) -> None:
    path = event_files.write(tmp_path / "events", EVENTS)
    path.write_bytes(path.read_bytes()[:-10])
    log = read(path)
    assert len(log) == 8
    assert log.not_read == (f"{path}: the last record is cut",)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(40, 400), st.binary(max_size=40))
def test_damage_gives_clean_errors(tmp_path: Path, at: int, noise: bytes) -> None:
    path = event_files.write(tmp_path / "events", EVENTS)
    content = path.read_bytes()
    path.write_bytes(content[:at] + noise + content[at + len(noise) :])
    with contextlib.suppress(CkptoolsError):
        read(path)


def test_a_file_without_scalars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CkptoolsError):
        read(event_files.write(tmp_path / "events", []))


def test_a_tag_that_goes_back_tells_a_restart_and_tags_out_of_step_do_not(tmp_path: Path) -> None:
    def logged(tag: str, *steps: int) -> list[bytes]:
        return [event_files.scalar(tag, step, 1.0) for step in steps]

    events = [
        *logged("train/loss", 10, 20, 30),
        *logged("d0.loss_cls", 10, 20, 20),  # a tag of its own, and a step logged twice
        *logged("train/loss", 15),
        *logged("d0.loss_cls", 15),
        *logged("train/loss", 25),
    ]
    log = read(event_files.write(tmp_path / "events", events))
    assert [one.segment for one in log] == [0] * 6 + [1] * 3
