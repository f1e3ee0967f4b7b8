from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.errors import OpenError
from ckptools.lanes import faults
from ckptools.rerun.bisect import bisect
from ckptools.workflows.bisection import bisect as bisect_run

TASK = "ckptools.lanes.task:Lanes"


@given(st.integers(2, 300), st.data())
def test_the_first_bad_one_is_found_in_about_log2_n_loads(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, count - 1))
    loads: list[int] = []

    def loss(place: int) -> float:
        loads.append(place)
        return 5.0 if place < first else 8.0

    found = bisect(count, loss)
    assert (found.good, found.bad) == (first - 1, first)
    assert len(loads) <= 2 + math.ceil(math.log2(count))


@given(st.integers(24, 200), st.data())
def test_early_progress_does_not_hide_it(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(count // 2, count - 1))
    loads: list[int] = []

    def loss(place: int) -> float:
        loads.append(place)
        slow = 30.0 * math.exp(-place / 2) + 5.0 * 0.999**place
        return slow * (1.0 if place < first else 1.6)

    found = bisect(count, loss)
    assert found.bad == first
    assert len(loads) <= 3 + 3 * math.ceil(math.log2(count))


def test_a_loss_of_no_number_is_bad() -> None:
    assert bisect(9, lambda place: math.nan if place > 6 else 1.0).bad == 7


@pytest.mark.parametrize("count", [0, 1, 2, 17])
def test_a_healthy_run_has_none(count: int) -> None:
    assert bisect(count, lambda place: 5.0 * 0.98**place).bad is None


def test_a_run_of_lanes(lanes_run: Path, tmp_path: Path) -> None:
    for epoch in (1, 2):
        source = lanes_run / f"checkpoint_epoch_{epoch}.pth"
        (tmp_path / source.name).write_bytes(source.read_bytes())
    faults.plant(
        lanes_run / "checkpoint_epoch_3.pth",
        tmp_path / "checkpoint_epoch_3.pth",
        "scaled-head",
        seed=1,
    )
    found = bisect_run(tmp_path, TASK, settings={"size": "small"}, threads=1)
    assert found.exit_code == 1
    document = found.document()
    assert document["first_bad"]["epoch"] == 3
    assert document["last_good"]["epoch"] == 2
    assert document["loads"] <= 3
    assert found.view()


def test_one_checkpoint_is_no_series(lanes_run: Path, tmp_path: Path) -> None:
    source = lanes_run / "checkpoint_epoch_1.pth"
    (tmp_path / source.name).write_bytes(source.read_bytes())
    with pytest.raises(OpenError, match="1 checkpoints"):
        bisect_run(tmp_path, TASK, settings={"size": "small"})
