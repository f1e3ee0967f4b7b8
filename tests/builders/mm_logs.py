"""One made-up training as mmcv and mmengine print it, in text and in JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TERMS = ("loss_cls", "loss_pts", "d0.loss_cls", "d0.loss_pts", "d1.loss_cls", "d1.loss_pts")


@dataclass(frozen=True)
class Row:
    epoch: int
    iter: int
    lr: float
    values: dict[str, float]


def rows(epochs: int = 3, each: int = 7, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    made = []
    for epoch in range(1, epochs + 1):
        for number in range(1, each + 1):
            values = {term: round(float(rng.uniform(0, 9)), 4) for term in TERMS}
            values["loss"] = round(sum(values.values()), 4)
            values["grad_norm"] = round(float(rng.uniform(1, 99)), 4)
            made.append(Row(epoch, 50 * number, float(f"{1e-4 / epoch:.3e}"), values))
    made[3].values["grad_norm"] = float("nan")
    made[4].values["grad_norm"] = float("inf")
    return made


CONFIG = "Config:\nlr = 0.0005\noptimizer = dict(type='AdamW', lr=0.0005)\nloss_weight: 2.0\n"


def mmcv_text(made: list[Row]) -> str:
    lines = ["2026-08-20 19:00:00,000 - mmdet - INFO - " + CONFIG]
    for row in made:
        values = ", ".join(f"{key}: {value:.4f}" for key, value in row.values.items())
        lines.append(
            f"2026-08-20 19:37:47,887 - mmdet - INFO - Epoch [{row.epoch}][{row.iter}/1759]\t"
            f"lr: {row.lr:.3e}, eta: 2 days, 13:22:41, time: 2.410, data_time: 0.167, "
            f"memory: 19422, {values}\n"
        )
        if row.iter == 350:
            lines.append(
                f"2026-08-20 20:37:47,887 - mmdet - INFO - Epoch(val) [{row.epoch}][90]\t"
                f"mAP: 0.{row.epoch}000\n"
            )
    return "".join(lines)


def mmcv_json(made: list[Row]) -> str:
    lines = [json.dumps({"env_info": "Python: 3.8", "config": CONFIG, "mmdet_version": "2.14.0"})]
    for row in made:
        head: dict[str, Any] = {"mode": "train", "epoch": row.epoch, "iter": row.iter}
        beside = {"lr": row.lr, "time": 2.41, "data_time": 0.167, "memory": 19422}
        lines.append(json.dumps(head | beside | row.values))
        if row.iter == 350:
            lines.append(json.dumps({"mode": "val", "epoch": row.epoch, "mAP": row.epoch / 10}))
    return "\n".join(lines) + "\n"


def mmengine_text(made: list[Row]) -> str:
    lines = ["2026/08/20 19:00:00 - mmengine - INFO - " + CONFIG]
    for row in made:
        values = "  ".join(f"{key}: {value:.4f}" for key, value in row.values.items())
        lines.append(
            f"05/20 22:37:55 - mmengine - INFO - Epoch(train)  [{row.epoch}][{row.iter}/1759]  "
            f"lr: {row.lr:.4e}  eta: 0:00:28  time: 2.4100  data_time: 0.1670  memory: 19422  "
            f"{values}\n"
        )
        if row.iter == 350:
            head = f"05/20 22:39:55 - mmengine - INFO - Epoch(val) [{row.epoch}]"
            lines.append(f"{head}[ 50/90]    eta: 0:00:08  time: 0.1  data_time: 0.1  memory: 7\n")
            lines.append(f"{head}[90/90]    mAP: 0.{row.epoch}000  data_time: 0.1  time: 0.1\n")
    return "".join(lines)


def mmengine_json(made: list[Row]) -> str:
    lines = []
    for row in made:
        step = (row.epoch - 1) * 1759 + row.iter
        place = {"time": 2.41, "epoch": row.epoch, "iter": row.iter, "memory": 19422, "step": step}
        lines.append(json.dumps({"lr": row.lr, "data_time": 0.167} | row.values | place))
        if row.iter == 350:
            value = {"mAP": row.epoch / 10, "data_time": 0.1, "time": 0.1, "step": row.epoch}
            lines.append(json.dumps(value))
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
