"""What the names of values mean, ours and the user's own."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ckptools.errors import SettingsError
from ckptools.logs import read
from ckptools.logs.terms import meaning, patterns
from tests.builders.training_records import log_of


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("d0.loss_cls", ("cls", 0, None)),
        ("frame_0_d1.loss_map_pts", ("frame_0.map_pts", 1, None)),
        ("loss_vfl_aux_0", ("vfl", 0, None)),
        ("loss_bbox_dn_1", ("bbox_dn", 1, None)),
        ("train_loss_ce_0", ("ce", 0, "train")),
        ("test_loss_ce_0_unscaled", ("ce_unscaled", 0, "test")),
        ("s0.loss_cls", ("cls", 0, None)),
        ("task0.loss_heatmap", ("task0.heatmap", None, None)),
        ("val/loss", ("total", None, "val")),
        ("验证损失", ("total", None, "val")),
        ("Validation loss", ("total", None, "val")),
        ("valLoss", ("total", None, "val")),
        ("evaluation_loss", ("total", None, "val")),
        ("Valid predictions", ("valid_predictions", None, None)),
        ("trainable_share", ("trainable_share", None, None)),
        ("平均训练损失", ("total_avg", None, "train")),
        ("lr/decoder", ("lr/decoder", None, None)),
    ],
)
def test_families(key: str, expected: tuple[str, int | None, str | None]) -> None:
    found = meaning(key)
    assert (found.term, found.layer, found.phase) == expected


def test_patterns_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 1, "pts@L3": 0.5, "valid:cls@L0": 0.25, "d0.loss_cls": 1.5}\n' * 2)
    own = [r"(?:(?P<phase>valid):)?(?P<term>\w+)@L(?P<layer>\d+)"]
    found = [(one.phase, one.term, one.layer) for one in read(path, patterns=own)][:3]
    assert found == [("train", "pts", 3), ("val", "cls", 0), ("train", "cls", 0)]


@pytest.mark.parametrize("wrong", ["(", "plain", r"(?P<other>\d)", 3])
def test_what_is_no_pattern(wrong: Any) -> None:
    with pytest.raises(SettingsError):
        patterns([wrong])


def test_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas is not among our dependencies, so its two functions are played."""
    pandas = SimpleNamespace(
        DataFrame=dict,
        Categorical=SimpleNamespace(
            from_codes=lambda codes, words: [words[code] for code in codes]
        ),
    )
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    log = log_of("Epoch 3 step 7 loss: 0.5\nLayer 2: pts=1.25\n")
    frame = log.to_pandas()
    assert list(frame) == [
        "run", "segment", "phase", "epoch", "iter", "step", "layer", "term", "value", "key"
    ]  # fmt: skip
    rows = list(zip(*frame.values(), strict=True))
    assert [(r[2], r[3], r[5], r[6], r[7], r[8]) for r in rows] == [
        ("train", 3.0, 7, -1, "total", 0.5),
        ("train", 3.0, 7, 2, "pts", 1.25),
    ]
