"""``ckptools log`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckptools.cli import main as cli
from tests.builders.shared import shared
from tests.builders.training_records import RECORD

CODES = [f"LOG10{number}" for number in range(1, 8)]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.md"
    path.write_text(RECORD, encoding="utf-8")
    return path


def document(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict:
    code = cli.run(["log", *map(str, arguments), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == code
    return found


def audited(found: dict) -> None:
    """Assert every figure that the record of the user's run holds."""
    assert found["schema"] == "ckptools.log/1"
    assert sorted(one["code"] for one in found["findings"]) == CODES
    losses = found["losses"]
    assert losses["components"] == {"cls": 2.0, "pts": 5.0, "dir": 0.25}
    assert losses["layers"] == [0.5] * 6
    assert losses["unique"] is True
    assert losses["printed"] == ["layers"]
    totals = [round(one["total"], 2) for one in found["counterfactuals"]]
    assert totals == [161.15, 61.21, 183.63, 47.5]
    assert found["split"]["total_before"] == 167.5
    assert found["split"]["by_weights"] == pytest.approx(144.9, abs=0.05)
    assert found["split"]["by_model"] == pytest.approx(-6.35, abs=0.005)
    assert found["warnings"] == {
        "count": 937, "steps": 4689, "interval": 5, "share_of_checks": 1.0,
    }  # fmt: skip
    assert found["clipping"]["limit"] == 35.0
    assert found["clipping"]["smallest_ratio"] == pytest.approx(45.8, abs=0.05)
    assert found["clipping"]["saturated"] is True
    assert found["shares"]["pts"] == pytest.approx(0.96, abs=0.005)
    assert found["layer_ratios"]["pts"] == pytest.approx(4.8, abs=0.05)


def test_a_record_in_our_words(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audited(document(capsys, record))


def test_the_record_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    audited(document(capsys, shared("data/epoch_13_record.md")))


def test_the_page_says_it_all(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["log", str(record)]) == 0
    page = capsys.readouterr().out
    for words in ("2·cls + 5·pts + 0.25·dir", "161.15", "61.21", "collapsed", "Series"):
        assert words in page


def test_warnings_count_when_asked(record: Path) -> None:
    assert cli.run(["log", str(record), "--fail-on", "warning"]) == 1


def test_rows_are_records(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["log", str(record), "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 28
    assert {one["term"] for one in rows} >= {"pts", "total", "grad_norm"}


def test_a_card_gives_what_the_log_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, card = tmp_path / "a.log", tmp_path / "run.toml"
    log.write_text(
        "Epoch 1: loss_aux_total: 30.0\nLayer 0: a=1.0, b=4.0\nLayer 1: a=2.0, b=3.0\n",
        encoding="utf-8",
    )
    card.write_text(
        "[weights]\na = 1.0\nb = 2.0\n[layers]\nnow = [2.0, 1.5]\n"
        '[[plan]]\nname = "less"\nlayers = [1.0, 1.0]\nexpected = [15, 20]\n',
        encoding="utf-8",
    )
    found = document(capsys, log, "--card", card)
    assert found["counterfactuals"] == [
        {"name": "less", "layers": [1.0, 1.0], "total": 17.0, "expected": [15.0, 20.0]}
    ]
    assert [one["code"] for one in found["findings"]] == ["LOG103"]


@pytest.mark.parametrize("text", ["weights = 3", "nonsense = 1", "clip = [", "[layers]\nnow = 'x'"])
def test_a_wrong_card_is_refused(
    record: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "run.toml"
    card.write_text(text, encoding="utf-8")
    assert document(capsys, record, "--card", card)["error"] == "SettingsError"


def test_what_is_no_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"\0" * 64)
    assert document(capsys, path)["error"] == "UnknownFormat"


def test_patterns_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 1, "pts@L3": 0.5}\n{"step": 2, "pts@L3": 0.25}\n')
    own = ["--pattern", r"(?P<term>\w+)@L(?P<layer>\d+)"]
    cli.run(["log", str(path), *own, "--format", "csv"])
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(",")[6:8] for row in rows[1:]] == [["3", "pts"]] * 2
    assert cli.run(["log", str(path), "--pattern", "("]) == 2
