"""Log and checkpoints of one run side by side."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import ckptools
from ckptools.cli import main as cli
from ckptools.report import render
from ckptools.workflows.log import log
from tests.builders.pairs import FC1, noise, run, weight
from tests.builders.small_run import planted


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "alignment"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    for path in run():
        shutil.copy(path, made / path.name)
    return made


STEPS = 10
Loss = Callable[[float], float]


def falling(epoch: float) -> float:
    """A loss that only falls."""
    return 2.0 + 8.0 * float(np.exp(-epoch))


def written(tmp_path: Path, loss: Loss, *, counters: Sequence[str] = ("epoch", "step")) -> Path:
    """Write a log of ten values for each epoch that the checkpoints stand for."""
    ends = [ckptools.open(path).run for path in run()]
    rows = []
    for before, after in itertools.pairwise(ends):
        assert before.epoch is not None
        assert after.epoch is not None
        first, last = before.step or 0, after.step or 0
        for part in range(1, STEPS + 1):
            step = first + round((last - first) * part / STEPS)
            value = loss(before.epoch + part / STEPS)
            place = {"epoch": after.epoch, "step": step}
            rows.append({name: place[name] for name in counters} | {"loss": value})
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_checkpoint_stands_beside_its_place_in_the_log(folder: Path, tmp_path: Path) -> None:
    found = log(written(tmp_path, falling), checkpoints=[folder]).document()
    for row in found["checkpoints"][1:]:
        assert row["by"] == "step"
        assert (row["log_epoch"], row["log_step"]) == (row["epoch"], row["step"])
        assert row["values"]["loss"] == pytest.approx(falling(row["epoch"]))
    first = found["checkpoints"][0]
    assert (first["by"], first["values"]) == (None, {})
    assert found["onsets"]["order"] == "none"


def test_without_steps_epochs_decide(folder: Path, tmp_path: Path) -> None:
    found = log(written(tmp_path, falling, counters=["epoch"]), checkpoints=[folder]).document()
    for row in found["checkpoints"][1:]:
        assert (row["by"], row["log_epoch"]) == ("epoch", row["epoch"])
        assert row["values"]["loss"] == pytest.approx(falling(row["epoch"]))


def test_a_checkpoint_beyond_the_log_has_no_place_in_it(folder: Path, tmp_path: Path) -> None:
    path = written(tmp_path, falling)
    lines = path.read_text().splitlines()[: 2 * STEPS]
    path.write_text("\n".join(lines))
    rows = log(path, checkpoints=[folder]).document()["checkpoints"]
    assert [row["by"] for row in rows] == [None, "step", "step", None, None, None]


def left(at: float) -> Loss:
    """A loss that leaves for good shortly after an epoch."""
    return lambda epoch: falling(epoch) if epoch <= at else 60.0


@pytest.mark.parametrize(
    ("fault", "loss", "order", "last"),
    [
        (None, falling, "none", 5),
        (3, falling, "checkpoints-only", 2),
        (None, left(2.5), "log-only", 2),
        (3, left(2.5), "together", 2),
        (2, left(3.3), "checkpoints-first", 1),
        (4, left(1.5), "log-first", 1),
    ],
)
def test_which_side_turned_first(
    folder: Path, tmp_path: Path, fault: int | None, loss: Loss, order: str, last: int
) -> None:
    if fault is not None:
        name = f"checkpoint_epoch_{fault}.pth"
        planted(run()[fault], folder / name, weight(FC1, noise))
    found = log(written(tmp_path, loss), checkpoints=[folder])
    onsets = found.document()["onsets"]
    assert onsets["order"] == order
    assert onsets["last_before"] == str(folder / f"checkpoint_epoch_{last}.pth")
    if fault is not None:
        assert (onsets["checkpoints"]["epoch"], onsets["checkpoints"]["target"]) == (fault, FC1)
    if "log" in order or order in ("together", "checkpoints-first"):
        assert onsets["log"]["code"] == "LOG202"
    for lang in ("en", "zh"):
        page = render(found, "table", lang=lang, width=80)
        assert max(map(len, page.splitlines())) <= 80
        assert fault is None or {"en": "turns here", "zh": "由此变坏"}[lang] in page


def test_a_log_without_counters_is_not_placed(folder: Path, tmp_path: Path) -> None:
    path = written(tmp_path, left(2.5), counters=[])
    onsets = log(path, checkpoints=[folder]).document()["onsets"]
    assert onsets["order"] == "log-only"
    planted(run()[3], folder / "checkpoint_epoch_3.pth", weight(FC1, noise))
    assert log(path, checkpoints=[folder]).document()["onsets"]["order"] == "unknown"


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(run()[3], folder / "checkpoint_epoch_3.pth", weight(FC1, noise))
    path = written(tmp_path, left(2.5))
    cli.run(["log", str(path), "--checkpoints", str(folder), "--lang", "zh"])
    page = capsys.readouterr().out
    assert "日志旁的检查点" in page
    assert "由此变坏" in page
    assert cli.run(["log", str(path), "--checkpoints", str(tmp_path / "nothing")]) == 2
