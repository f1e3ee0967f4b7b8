"""Logs of frameworks: every row, every value, and clean errors for what is cut or no log."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptools.errors import CkptoolsError, CorruptFile
from ckptools.logs import read
from ckptools.logs.audit import audit
from ckptools.types.records import Log
from tests.builders import mm_logs
from tests.builders.shared import shared


def table(log: Log) -> list[tuple[Any, ...]]:
    """Return what text and JSON have in common, comparable."""
    timing = {"time", "data_time", "memory"}
    return [
        (one.phase, one.epoch, one.iter, one.layer, one.term, f"{one.value:.6g}")
        for one in log
        if one.term not in timing
    ]


PAIRS: dict[str, tuple[Callable[..., str], Callable[..., str]]] = {
    "mmcv": (mm_logs.mmcv_text, mm_logs.mmcv_json),
    "mmengine": (mm_logs.mmengine_text, mm_logs.mmengine_json),
}


@pytest.mark.parametrize("name", PAIRS)
def test_text_and_json_agree_row_for_row(name: str, tmp_path: Path) -> None:
    made = mm_logs.rows()
    made += made[9:]  # a restart within the second epoch
    text, lines = (write(made) for write in PAIRS[name])
    from_text = read(mm_logs.write(tmp_path / "a.log", text))
    from_json = read(mm_logs.write(tmp_path / "a.json", lines))
    assert from_text.formats == ("mm-text",)
    assert from_json.formats == ("json-lines",)
    assert sorted(table(from_text), key=str) == sorted(table(from_json), key=str)
    train = [one for one in from_text if one.phase == "train" and one.term == "total"]
    assert [one.value for one in train] == [row.values["loss"] for row in made]
    assert len([one for one in from_text if one.term == "mAP"]) == 5
    assert from_text.segments == from_json.segments == 2


def test_a_plain_sum_is_no_news(tmp_path: Path) -> None:
    log = read(mm_logs.write(tmp_path / "a.log", mm_logs.mmcv_text(mm_logs.rows())))
    found = audit(log).components
    assert found is not None
    assert found.method == "plain sum"
    assert found.weights["pts.1"] == 1.0


def test_a_restart_opens_a_segment(tmp_path: Path) -> None:
    made = mm_logs.rows(epochs=2)
    again = [row for row in made if row.epoch == 2]
    path = mm_logs.write(tmp_path / "a.log", mm_logs.mmcv_text([*made, *again]))
    log = read(path)
    assert set(log.segment) == {0, 1}
    assert len(log) == len(read(mm_logs.write(path, mm_logs.mmcv_text(made)))) * 3 // 2


@pytest.mark.parametrize("name", ["scalars.json", "20241205_142419.json"])
def test_every_value_of_a_public_log(name: str) -> None:
    path = shared(f"data/logs/dfine_mmdet/{name}")
    expected: Counter[tuple[str, str]] = Counter()
    sums: dict[str, float] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        for key, value in row.items():
            if key not in ("epoch", "iter", "step"):
                expected["train" if "epoch" in row else "val", key] += 1
                sums[key] = sums.get(key, 0.0) + value
    log = read(path)
    assert Counter((one.phase, one.key) for one in log) == expected
    for key, total in sums.items():
        mine = log.value[log.key == log.keys.index(key)].sum()
        assert mine == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("maptr_issue216.log", 25),
        ("daocc_issue25.log", 9),
        ("mmdet_dino.log", 15),
        ("detr_log.txt", 9),
    ],
)
def test_excerpts_of_public_logs(name: str, count: int) -> None:
    """Counted by hand; eta is no value."""
    assert len(read(shared(f"data/logs/{name}"))) == count


def test_layers_of_public_spellings(tmp_path: Path) -> None:
    keys = {
        "d0.loss_cls": ("cls", 0),
        "frame_0_d1.loss_map_pts": ("frame_0.map_pts", 1),
        "loss_vfl_aux_0": ("vfl", 0),
        "loss_bbox_dn_1": ("bbox_dn", 1),
        "train_loss_ce_0": ("ce", 0),
        "s0.loss_cls": ("cls", 0),
        "task0.loss_heatmap": ("task0.heatmap", None),
        "loss/object/heatmap/task0": ("loss/object/heatmap/task0", None),
        "d0.loss_pts_one2many": ("pts_one2many", 0),
        "enc_loss_cls": ("enc_cls", None),
        "d0.dn_loss_cls": ("dn_cls", 0),
        "pts.3": ("pts", 3),
    }
    path = mm_logs.write(tmp_path / "a.jsonl", json.dumps(dict.fromkeys(keys, 1.5)) + "\n")
    assert {one.key: (one.term, one.layer) for one in read(path)} == keys


def test_trainer_state(tmp_path: Path) -> None:
    history = [
        {"loss": 2.5, "grad_norm": math.nan, "learning_rate": 1e-4, "epoch": 0.5, "step": 10},
        {"eval_loss": 2.0, "eval_runtime": 3.0, "epoch": 1.0, "step": 20},
    ]
    state = {"best_metric": None, "epoch": 1.0, "global_step": 20, "log_history": history}
    log = read(mm_logs.write(tmp_path / "x", json.dumps(state, indent=2)))
    assert log.formats == ("json-history",)
    assert [(one.phase, one.step, one.term) for one in log] == [
        ("train", 10, "total"),
        ("train", 10, "grad_norm"),
        ("train", 10, "lr"),
        ("val", 20, "total"),
        ("val", 20, "runtime"),
    ]
    with pytest.raises(CorruptFile):
        read(mm_logs.write(tmp_path / "cut", json.dumps(state, indent=2)[:-9]))


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_tables(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "metrics.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["epoch", "step", "train_loss", "val_loss"])
        writer.writerows([[0, 49, 1.5, ""], [0, 99, "nan", ""], [0, 99, "", 1.25], [1, 2]])
    log = read(path)
    assert log.formats == ("csv",)
    assert [(one.phase, one.epoch, one.step) for one in log] == [
        ("train", 0.0, 49),
        ("train", 0.0, 99),
        ("val", 0.0, 99),
    ]
    assert np.isnan(log.value[1])
    assert len(log.not_read) == 1


def test_broken_lines_are_counted(tmp_path: Path) -> None:
    good = '{"epoch": 1, "loss": 0.5}\n'
    log = read(mm_logs.write(tmp_path / "a", good * 3 + '{"epoch": 2, "lo'))
    assert len(log) == 3
    assert "line 4" in log.not_read[0]
    with pytest.raises(CorruptFile):
        read(mm_logs.write(tmp_path / "b", good + "no\n" * 5))


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300), st.integers(0, 2000), st.sampled_from(sorted(PAIRS)))
def test_cut_files_and_garbage_give_clean_errors(
    tmp_path: Path, noise: bytes, cut: int, name: str
) -> None:
    made = mm_logs.rows(epochs=1, each=5)
    for write in PAIRS[name]:
        path = tmp_path / "x"
        path.write_bytes(write(made).encode()[:cut] + noise)
        with contextlib.suppress(CkptoolsError):
            audit(read(path))


@pytest.mark.parametrize(
    "line",
    ["optimizer_config = dict(grad_clip=dict(max_norm=35, norm_type=2))", "'max_norm': 35.0,"],
)
def test_the_clip_of_a_printed_configuration_is_stated(line: str, tmp_path: Path) -> None:
    text = mm_logs.mmcv_text(mm_logs.rows())
    log = read(mm_logs.write(tmp_path / "a.log", f"{line}\n{text}"))
    assert [(one.kind, one.values) for one in log.statements] == [("clip", (35.0,))]
    assert len(log) == len(read(mm_logs.write(tmp_path / "b.log", text)))
