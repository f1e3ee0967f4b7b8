"""Lines read together say what they say one by one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptools.logs import learning, shapes, store
from ckptools.logs.builder import Builder
from ckptools.logs.registry import readers
from ckptools.types.records import Log
from tests.builders import mm_logs
from tests.builders.shared import shared
from tests.builders.training_records import RECORD

TEXTS = [
    "Epoch {i}",
    "=== Epoch {i} done ===",
    "# Plan {i}: weights",
    "## Training",
    "",
    "loss: {f}",
    "step {i} loss: {f} acc={f}",
    "step {i}: val loss {f}, lr: {f}",
    "[{t}] step {i}/9000 | loss={f} | lr {f} | (max_norm: 35.0)",
    "epoch {i} iter {i} loss_total: {f} (Avg)",
    "Train Epoch: {i} [{i}/141886 (35%)]     Loss: {f}",
    "grad_norm: {f} iteration: {i}",
    "loss_a:{f}  loss_b:{f}  loss:{f}  ",
    "Layer {d}: cls={f}, pts={f}",
    "第{i}轮 损失={f} 梯度范数：{f}",
    "轮次 [{i}/10], 训练损失：{f}, 准确率: {f}%",
    "{{'loss': {f}, 'grad_norm': {f}, 'epoch': {f}}}",
    "**loss_pts**: {f}, `aux`={f}",
    "largest gradient norm: {f} (step {i})",
    "gradient warning at step {i}: grad_norm={f}",
    "Gradient warnings: {i} in {i} steps",
    "grad_clip={f}",
    "| layer | cls | pts |",
    "| {d} | {f} | {f} |",
    "- [ ] loss: {f}",
    "norms: {i}-{i}, ratio {f} / {f} = {f}",
    "v{f}.{i} of {i} days, 3:00 loss: {f}-{i}",
    "host-{i} loss: {f}. next: {i}.",
    "epoch: {f}, loss: {f} epoch {i}",
    "aux weights [0.1, 0.2] -> [{f}, 0.5]",
]


def formatted(template: str, rng: random.Random) -> str:
    """Return a line with numbers as programs print them."""
    text = template.replace("{{", "\0").replace("}}", "\1")
    while "{" in text:
        at = text.index("{")
        kind = text[at + 1]
        if kind == "i":
            made = str(rng.choice([rng.randrange(9), rng.randrange(10_000), rng.randrange(10**17)]))
        elif kind == "d":
            made = str(rng.randrange(6))
        elif kind == "t":
            made = (
                f"2026-02-{rng.randrange(1, 29):02} {rng.randrange(24):02}:{rng.randrange(60):02}"
            )
        else:
            value = rng.uniform(-9, 99) * 10 ** rng.randrange(-9, 6)
            style = rng.choice(["{:.4f}", "{:.4f}", "{:.3e}", "{!r}", "{:g}", "{:.0f}", "n"])
            made = rng.choice(["nan", "inf", "-inf"]) if style == "n" else style.format(value)
        text = text[:at] + made + text[at + 3 :]
    return text.replace("\0", "{").replace("\1", "}")


def both(kind: str, path: Path) -> tuple[Any, Any]:
    """Return what a reader finds together and line by line, comparable."""
    found = []
    for together in (True, False):
        builder = Builder()
        builder.start(str(path), kind)
        readers.get(kind).read(path, builder, together=together)  # type: ignore[call-arg]
        builder.finish()
        found.append(comparable(builder.build()))
    return found[0], found[1]


def comparable(log: Log) -> Any:
    rows = [tuple(repr(getattr(one, name)) for name in one.__dataclass_fields__) for one in log]
    stated = {(one.kind, one.values, one.epoch, one.where) for one in log.statements}
    return rows, stated, log.entries, log.segments, log.not_read


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**32), st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=5))
def test_free_text(tmp_path: Path, seed: int, chosen: list[int]) -> None:
    rng = random.Random(seed)
    lines = []
    for _ in range(rng.randrange(1, 120)):
        template = TEXTS[rng.choice(chosen) if rng.random() < 0.97 else rng.randrange(len(TEXTS))]
        lines.append(formatted(template, rng))
    path = mm_logs.write(tmp_path / "x", "\n".join(lines))
    together, alone = both("text", path)
    assert together[0] == alone[0]
    assert together[1] <= alone[1]
    assert together[2:] == alone[2:]


@pytest.mark.parametrize("write", [mm_logs.mmcv_text, mm_logs.mmengine_text])
@pytest.mark.parametrize("size", [1 << 9, 1 << 13, 1 << 21])
def test_mm_text(write: Any, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "BLOCK", size)
    made = mm_logs.rows(epochs=4, each=30)
    path = mm_logs.write(tmp_path / "x", write(made + made[40:]) + RECORD)
    together, alone = both("mm-text", path)
    assert together == alone


@pytest.mark.parametrize(
    "name",
    ["maptr_issue216.log", "daocc_issue25.log", "mmdet_dino.log", "zh.log", "radiant_issue9.log",
     "hf_stdout.log", "../epoch_13_record.md"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["text", "mm-text"])
def test_public_logs_many_times_over(name: str, kind: str, tmp_path: Path) -> None:
    text = shared(f"data/logs/{name}").read_text()
    path = mm_logs.write(tmp_path / "x", (text + "\n") * 30)
    together, alone = both(kind, path)
    assert together[0] == alone[0]
    assert together[2:] == alone[2:]


def test_shapes_without_end_are_read_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "MOST_SHAPES", 3)
    monkeypatch.setattr(learning, "MOST_VARIANTS", 2)
    rng = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
    lines = [f"{rng.choice(words)}-{rng.randrange(9)}: {rng.random():.3f}" for _ in range(400)]
    together, alone = both("text", mm_logs.write(tmp_path / "x", "\n".join(lines)))
    assert len(together[0]) == 400
    assert together == alone


def test_a_log_larger_than_the_memory_allows_goes_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mm_logs.rows(epochs=4, each=30)
    path = mm_logs.write(tmp_path / "x", mm_logs.mmcv_text(made))
    small, _ = both("mm-text", path)
    monkeypatch.setattr(store, "IN_MEMORY", 4096)
    monkeypatch.setattr(shapes, "BLOCK", 1 << 10)
    monkeypatch.setattr("ckptools.logs.builder._VALUES", 64)
    builder = Builder()
    builder.start(str(path), "mm-text")
    readers.get("mm-text").read(path, builder)
    builder.finish()
    log = builder.build()
    assert len(log.parts) > 10
    assert comparable(log) == small
    assert [log[index] for index in (0, 7, len(log) - 1)] == [
        one for index, one in enumerate(log) if index in (0, 7, len(log) - 1)
    ]
    index = log.where(term="total")
    assert np.array_equal(log.pick("value", index), log.value[index])
    assert json.dumps(log[5].value)
