from __future__ import annotations

import pytest
import torch

from ckptools.lanes.metrics import chamfer, scores
from ckptools.lanes.model import Output
from ckptools.lanes.scenes import EXTENT, batch
from tests.lanes.test_losses import perfect_output, random_output

SCENES = batch(0, 0, size=32)


def judged(output: Output) -> dict[str, float]:
    return scores(output, SCENES["lines"], SCENES["classes"])


def test_perfect_predictions() -> None:
    lines = int((SCENES["classes"] >= 0).sum())
    assert judged(perfect_output(SCENES)) == {"mAP": 1.0, "valid": lines / 32}


def test_random_predictions_find_nothing() -> None:
    assert judged(random_output(0, scenes=32))["mAP"] < 0.02


def test_a_shift_beyond_one_threshold_costs_a_third() -> None:
    output = perfect_output(SCENES)
    up = torch.tensor([0.0, 0.0, 0.7]) / torch.as_tensor(EXTENT, dtype=torch.float32)
    assert judged(Output(output.logits, output.lines + up))["mAP"] == pytest.approx(2 / 3)


def test_the_wrong_class_is_wrong() -> None:
    output = perfect_output(SCENES)
    assert judged(Output(output.logits[..., [1, 2, 0, 3]], output.lines))["mAP"] == 0.0


def test_doubles_are_false_alarms() -> None:
    output = perfect_output(SCENES)
    logits, lines = output.logits.clone(), output.lines.clone()
    logits[:, :, 4:], lines[:, :, 4:] = logits[:, :, :4], lines[:, :, :4]
    assert 0.3 < judged(Output(logits, lines))["mAP"] < 0.8


def test_a_line_shrunk_to_a_point_is_no_valid_prediction() -> None:
    output = perfect_output(SCENES)
    points = output.lines.mean(dim=-2, keepdim=True).expand(-1, -1, -1, 8, -1)
    assert judged(Output(output.logits, points))["valid"] == 0.0


def test_predictions_that_are_not_finite_count_as_wrong() -> None:
    output = perfect_output(SCENES)
    result = judged(Output(output.logits, output.lines * torch.nan))
    assert result == {"mAP": 0.0, "valid": 0.0}


def test_chamfer_distance_of_parallel_lines() -> None:
    line = torch.zeros(1, 1, 8, 3)
    line[..., 0] = torch.linspace(0.0, 14.0, 8)
    beside = line + torch.tensor([0.0, 0.9, 0.0])
    assert float(chamfer(line, beside)) == pytest.approx(0.9, rel=1e-5)


def test_chamfer_distance_looks_between_the_points() -> None:
    line = torch.zeros(1, 1, 8, 3)
    line[..., 0] = torch.linspace(0.0, 14.0, 8)
    assert float(chamfer(line, line + torch.tensor([2 / 3, 0.0, 0.0]))) < 0.1
