from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ckptools.lanes.settings import RATES, LaneSettings


def test_defaults() -> None:
    assert LaneSettings.parse({}) == LaneSettings()


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"depth": 3}, "depth"),
        ({"size": "huge"}, "huge"),
        ({"blocks": 7}, "blocks"),
        ({"blocks": 2.5}, "2.5"),
        ({"aux_weights": [0.5] * 5}, "5 weights for 6 blocks"),
        ({"aux_weights": -0.1}, "negative"),
        ({"warmup": -1}, "warmup"),
        ({"clip": 0}, "clip"),
        ({"clip": float("nan")}, "clip"),
        ({"lr": {"head": 1e-3}}, "head"),
        ({"lr_scale": "fast"}, "lr_scale"),
        ({"cameras": [0, 0, 1, 2, 3, 4]}, "cameras"),
        ({"batch": 0}, "batch"),
        ({"log": "missing.jsonl"}, "missing.jsonl"),
    ],
)
def test_what_cannot_be_honoured_is_refused(given: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        LaneSettings.parse(given)


def test_all_problems_at_once() -> None:
    with pytest.raises(ValueError, match=r"warmup: .*clip: ") as caught:
        LaneSettings.parse({"clip": -1, "warmup": 0.5, "unknown": 1})
    assert "unknown" in str(caught.value)


def test_one_auxiliary_weight_stands_for_all_blocks() -> None:
    assert LaneSettings.parse({"aux_weights": 0.3, "blocks": 3}).aux_weights == (0.3,) * 3


def test_fewer_blocks_keep_the_default_weight() -> None:
    assert LaneSettings.parse({"blocks": 2}).aux_weights == (0.5, 0.5)


def test_learning_rates() -> None:
    assert LaneSettings.parse({"lr": 1e-4}).rates() == dict.fromkeys(RATES, 1e-4)
    some = LaneSettings.parse({"lr": {"lora": 5e-5}, "lr_scale": 2}).rates()
    assert some["lora"] == pytest.approx(1e-4)
    assert some["qformer_decoder"] == pytest.approx(2 * RATES["qformer_decoder"])


def test_log_is_a_file(tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"
    log.touch()
    assert LaneSettings.parse({"log": log}).log == str(log)
