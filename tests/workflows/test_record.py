"""Records are read back to the numbers that they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptools.cli import main as cli
from ckptools.logs import read
from ckptools.logs.terms import is_loss
from ckptools.report.wording import translate
from ckptools.workflows.log import Logged, log
from ckptools.workflows.record import record
from tests.builders.shared import shared
from tests.builders.training_records import RECORD

LANGUAGES = ("en", "zh")
Losses = dict[tuple[str, int | None], list[float]]


def again(found: Logged, lang: str, tmp_path: Path) -> Logged:
    """Write the record of a log in a language and read it."""
    path = tmp_path / f"record_{lang}.md"
    path.write_text(translate(record(found), lang), encoding="utf-8")
    return log(path)


def audit_of(found: Logged) -> dict[str, Any]:
    """Return every figure of the audit, without paths and counts of records."""
    document = found.document()
    names = ("losses", "shares", "layer_ratios", "counterfactuals", "split", "warnings", "clipping")
    findings = {one["code"]: (one["message"], one["evidence"]) for one in document["findings"]}
    return {name: document[name] for name in names} | {"findings": findings}


def losses(path: Path, *, last: bool) -> Losses:
    """Return the losses of a log's training by term and layer, of its last epoch where asked."""
    found: Losses = {}
    kept = [
        one
        for one in read(path)
        if one.phase == "train" and (is_loss(one.term) or one.term in ("total", "aux_total"))
    ]
    epochs = [one.epoch for one in kept if one.epoch is not None]
    for one in kept:
        if not last or not epochs or one.epoch == max(epochs):
            found.setdefault((one.term, one.layer), []).append(one.value)
    return found


@pytest.mark.parametrize("lang", LANGUAGES)
class TestRoundTrip:
    def test_a_record_in_our_words(self, lang: str, tmp_path: Path) -> None:
        path = tmp_path / "record.md"
        path.write_text(RECORD, encoding="utf-8")
        found = log(path)
        assert audit_of(again(found, lang, tmp_path)) == audit_of(found)

    def test_the_record_of_the_user(self, lang: str, tmp_path: Path) -> None:
        found = log(shared("data/epoch_13_record.md"))
        assert audit_of(again(found, lang, tmp_path)) == audit_of(found)

    def test_a_record_of_a_record_is_the_same(self, lang: str, tmp_path: Path) -> None:
        path = tmp_path / "record.md"
        path.write_text(RECORD, encoding="utf-8")
        once = again(log(path), lang, tmp_path)
        first, second = (translate(record(one), lang).splitlines() for one in (log(path), once))
        differing = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
        assert all(".md" in a for a, _ in differing)  # the file's name, in two places
        assert len(differing) <= 2

    @pytest.mark.parametrize("name", ["train.log", "train.jsonl"])
    def test_the_last_epoch_of_a_run(
        self, lang: str, name: str, lanes_run: Path, tmp_path: Path
    ) -> None:
        again(log(lanes_run / name), lang, tmp_path)
        wanted = losses(lanes_run / name, last=True)
        got = losses(tmp_path / f"record_{lang}.md", last=True)
        assert got.keys() == wanted.keys()
        for key, values in wanted.items():
            assert got[key] == [pytest.approx(np.mean(values), rel=1e-6)]

    @pytest.mark.parametrize(
        "name",
        ["detr_log.txt", "mmdet_dino.log", "maptr_issue216.log", "radiant_issue9.log", "zh.log"],
    )
    def test_public_logs(self, lang: str, name: str, tmp_path: Path) -> None:
        source = shared(f"data/logs/{name}")
        again(log(source), lang, tmp_path)
        wanted = losses(source, last=True)
        got = losses(tmp_path / f"record_{lang}.md", last=True)
        for key in wanted:
            assert key in got
            values = np.array(wanted[key])
            low, high = values.min(), values.max()
            slack = 1e-6 * max(abs(low), abs(high))
            assert np.isnan(got[key][0]) or low - slack <= got[key][0] <= high + slack


def test_means_of_an_epoch_say_so(lanes_run: Path) -> None:
    lines = record(log(lanes_run / "train.jsonl")).splitlines()
    assert any(line.startswith("loss_total: ") and line.endswith(" (Avg)") for line in lines)


def test_checkpoints_stand_in_a_table(lanes_run: Path, tmp_path: Path) -> None:
    found = log(lanes_run / "train.jsonl", checkpoints=[lanes_run])
    text = translate(record(found), "zh")
    assert "| 检查点 | epoch | step | 损失 | 验证损失 |" in text
    assert "| `checkpoint_epoch_3.pth` | 3 | 192 |" in text
    assert "- 日志和检查点都没有变坏的转折" in text


def test_names_of_files_are_never_taken_for_values(tmp_path: Path) -> None:
    path = tmp_path / "loss_pts=3.5, step=7|`x`.md"
    path.write_text(RECORD, encoding="utf-8")
    found = log(path)
    assert audit_of(again(found, "en", tmp_path)) == audit_of(found)


def test_the_command_writes_a_new_file_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "record.md", tmp_path / "epoch_13.md"
    path.write_text(RECORD, encoding="utf-8")
    assert cli.run(["log", str(path), "--record", str(out), "--lang", "zh"]) == 0
    assert out.read_text(encoding="utf-8").startswith("# Epoch 13 训练记录\n")
    assert f"已写入 {out}" in capsys.readouterr().err
    assert cli.run(["log", str(path), "--record", str(path)]) == 2
    assert path.read_text(encoding="utf-8") == RECORD
