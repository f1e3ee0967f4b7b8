"""The page of a log: plans judged, series drawn, everything in both languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckptools.report import pieces, render
from ckptools.report.fit import display_width
from ckptools.workflows.log import log
from tests.builders.shared import shared
from tests.builders.training_records import RECORD

CARD = """
clip = 35.0
[layers]
before = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
now = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
[[plan]]
name = "A"
layers = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
expected = [60, 80]
[[plan]]
name = "B"
layers = [0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
expected = [60, 80]
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A log of the losses alone: weights, clip and plans stand on the card."""
    path = tmp_path / "losses.md"
    losses = RECORD.partition("## Gradients")[0].partition("## Losses")[2]
    path.write_text(f"## Losses{losses}", encoding="utf-8")
    (tmp_path / "run.toml").write_text(CARD, encoding="utf-8")
    return path


def test_a_plan_of_the_card_is_judged(bare: Path) -> None:
    """A's target of 60 to 80 is reached with no training at all: 61.21."""
    found = log(bare, card=bare.parent / "run.toml")
    (plan,) = (one for one in found.findings if one.code == "LOG103")
    assert plan.target == "A"
    assert "60–80" in plan.message
    assert "61.21" in plan.message
    assert plan.evidence["expected"] == [60, 80]
    totals = {one["name"]: one["total"] for one in found.document()["counterfactuals"]}
    assert totals["A"] == pytest.approx(61.21, abs=0.005)
    assert totals["B"] == pytest.approx(183.63, abs=0.005)  # not reached: nothing is said of it


def test_without_the_card_nothing_is_said_of_plans(bare: Path) -> None:
    assert "LOG103" not in {one.code for one in log(bare).findings}


def pages(path: Path) -> dict[str, str]:
    found = log(path)
    return {lang: render(found, "table", lang=lang) for lang in ("en", "zh")}


def test_both_languages_print_the_same_figures(tmp_path: Path) -> None:
    path = tmp_path / "record.md"
    path.write_text(RECORD, encoding="utf-8")
    page = pages(path)
    for number in ("161.15", "61.21", "183.63", "47.50", "306.04", "937", "4689", "3.8%", "4.8"):
        assert number in page["en"]
        assert number in page["zh"]
    assert "所以模型变好了 3.8%" in page["zh"].replace("\n         ", "")


@pytest.mark.parametrize(
    "name",
    [
        "epoch_13_record.md",
        *(f"logs/{name}" for name in ("zh.log", "detr_log.txt", "mmdet_dino.log")),
        "logs/dfine_mmdet/scalars.json",
    ],
)
def test_pages_fit_a_hundred_columns(name: str) -> None:
    for page in pages(shared(f"data/{name}")).values():
        assert max(map(display_width, page.splitlines())) <= 100


def test_a_series_is_drawn_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [{"epoch": 1, "step": step, "loss": 100.0 - step} for step in range(50)]
    rows += [{"epoch": 1, "step": step, "loss": 80.0 - step} for step in range(20, 70)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (line,) = (one for one in pages(path)["en"].splitlines() if one.startswith("total "))
    name, count, first, last, course = line.split()
    assert (name, count, first, last) == ("total", "100", "100", "11")
    assert len(course) == 24
    assert course[0] == "█"
    assert course[-1] == "▁"


def test_rows_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("".join(f"step {one} loss: {one}.5 lr: 0.1\n" for one in range(6000)))
    found = log(path)
    rows = found.rows()
    assert not isinstance(rows, list)
    assert len(rows) == 12_000
    assert rows[0] == next(iter(rows)) == rows[:2][0]
    assert rows[-1] == {
        "source": str(path), "segment": 0, "phase": "train", "epoch": None, "iter": None,
        "step": 5999, "layer": None, "term": "lr", "key": "lr", "value": 0.1,
    }  # fmt: skip
    for medium in ("csv", "jsonl"):
        parts = list(pieces(found, medium))
        assert len(parts) > 2
        assert "".join(parts) == render(found, medium) == render(found, medium, lang="zh")
        assert max(map(len, parts)) < len("".join(parts)) / 2


def test_of_a_decoder_the_first_and_the_last_layer_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [
        {"step": step, **{f"d{layer}.loss_cls": 1 / step + layer for layer in range(6)}, "lr": 0.1}
        for step in range(1, 5)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    lines = render(log(path), "table", lang="en").splitlines()
    drawn = lines[next(i for i, line in enumerate(lines) if "── Series" in line) :]
    assert [line.split("  ")[0] for line in drawn[3:]] == [
        "cls of layer 0",
        "cls of layer 5",
        "lr",
        "… 4 more",
    ]
