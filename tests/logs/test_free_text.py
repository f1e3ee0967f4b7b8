"""Free text, as programs print it and as people write it down."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ckptools.errors import OpenError, UnknownFormat
from ckptools.logs import read
from ckptools.logs.builder import Builder
from ckptools.logs.gradients import warnings_of
from ckptools.logs.readers.free_text import FreeText
from tests.builders import mm_logs
from tests.builders.shared import shared
from tests.builders.training_records import LAYERS, RECORD, log_of
from tests.logs.test_learning import both


def triples(text: str) -> list[tuple[float | None, str, float]]:
    return [(one.epoch, one.term, one.value) for one in log_of(text)]


def test_a_record_is_read_completely() -> None:
    log = log_of(RECORD)
    layers = [one for one in log if one.layer is not None]
    assert len(layers) == 18
    assert [one.value for one in layers] == [value for row in LAYERS for value in row]
    rest = [(one.epoch, one.step, one.term, one.value) for one in log if one.layer is None]
    assert rest == [
        (13.0, None, "total", 35.9598),
        (13.0, None, "aux_total", 306.0442),
        (13.0, None, "cls", 0.3651),
        (13.0, None, "pts", 6.4505),
        (13.0, None, "dir", 11.9087),
        (12.0, None, "aux_total", 167.5),
        (13.0, 4465, "grad_norm", 14140.87),
        (13.0, 4600, "grad_norm", 1604.12),
        (13.0, None, "lr/decoder", 1.9e-4),
        (13.0, None, "lr/projector", 2.3e-4),
    ]


def test_statements_of_a_record() -> None:
    found = {
        (one.kind, one.epoch if one.kind == "layer-weights" else None): one.values
        for one in log_of(RECORD).statements
    }
    assert found["layer-weights", 12.0] == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    assert found["layer-weights", 13.0] == (0.5,) * 6
    assert found["warnings", None] == (937.0,)
    assert found["steps", None] == (4689.0,)
    assert found["clip", None] == (35.0,)
    assert found["plan-clip", None] == (10.0,)
    assert found["expected", None] == (60.0, 80.0)
    assert found["plan-last", None] == (2.0,)


def test_chinese() -> None:
    text = (
        "轮次 [3/10], 训练损失: 0.1234, 测试损失: 0.2345, 准确率: 92.31%\n"
        "=== Epoch 4 完成 ===\n训练损失：0.1100 | 训练准确率：0.9410\n平均训练损失: 0.1033\n"
        "第5轮 损失=0.0987 梯度范数=3.21\n"
    )
    assert triples(text) == [
        (3.0, "total", 0.1234),
        (3.0, "total", 0.2345),
        (3.0, "accuracy", 92.31),
        (4.0, "total", 0.11),
        (4.0, "accuracy", 0.941),
        (4.0, "total_avg", 0.1033),
        (5.0, "total", 0.0987),
        (5.0, "grad_norm", 3.21),
    ]
    assert [one.phase for one in log_of(text)][:3] == ["train", "test", "train"]


def test_values_on_the_next_line_belong_to_the_same_place() -> None:
    text = (
        "Train Epoch: 4 [49920/141886 (35%)]     Loss: 0.326567\n"
        "grad_norm: 4.0071 iteration: 59448\nloss_a:0.134  loss_b:0.135  loss:0.327\n"
    )
    log = log_of(text)
    assert [(one.epoch, one.iter) for one in log] == [(4.0, 49920)] * 5
    assert [one.step for one in log] == [None, *[59448] * 4]
    assert set(log.segment) == {0}


def test_dict_reprs() -> None:
    text = "{'loss': 2.3113, 'grad_norm': nan, 'epoch': 0.12}\n{'eval_loss': inf, 'epoch': 1.0}\n"
    log = log_of(text)
    assert [(one.phase, one.epoch, one.term) for one in log] == [
        ("train", 0.12, "total"),
        ("train", 0.12, "grad_norm"),
        ("val", 1.0, "total"),
    ]
    assert math.isnan(log[1].value)
    assert math.isinf(log[2].value)


def test_dates_times_ranges_and_quotients_are_no_values() -> None:
    text = (
        "time: 2026-02-07\nstarted: 17:24\neta: 2 days, 3:00\nnorms: 1700-14140\n"
        "ratio: 306.04 / 35.96 = 8.5\nEpoch 1 loss: 0.5\n"
        "loss_a: 36.2 → 35.9\nloss_b: 36.2 -> 35.9\ntokens: 16,384\n"
    )
    assert triples(text) == [(1.0, "total", 0.5)]


@pytest.mark.parametrize(
    ("name", "count"), [("zh.log", 11), ("radiant_issue9.log", 6), ("hf_stdout.log", 4)]
)
def test_excerpts_of_public_logs(name: str, count: int) -> None:
    """Counted by hand."""
    assert len(read(shared(f"data/logs/{name}"))) == count


@pytest.mark.parametrize(
    "content", [b"", b"\0\1\2" * 100, bytes(range(256)) * 20, b"no value in here\n"]
)
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(content)
    with pytest.raises(UnknownFormat):
        read(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OpenError):
        read(tmp_path)
    with pytest.raises(OpenError):
        read(tmp_path / "missing.log")


def test_configurations_are_no_values() -> None:
    text = (
        "Namespace(lr=0.0005, batch_size=2, loss_pts=5.0)\n"
        "optimizer = dict(type='AdamW', lr=0.0005)\n"
        "batch_size: 16\nnum_workers=4\nloss_weight: 2.0\nseed: 0\n"
        "Epoch 1 loss: 0.5\n"
    )
    assert triples(text) == [(1.0, "total", 0.5)]


def test_values_under_a_carriage_return_are_each_read() -> None:
    text = "".join(f"\rEpoch 1: step {i}/9 loss: {i}.5" for i in range(20)) + "\n"
    log = log_of(text)
    assert [one.iter for one in log] == list(range(20))
    assert log.segments == 1


def test_warnings_that_are_printed_one_by_one_are_counted() -> None:
    lines = []
    for step in range(200):
        lines.append(f"step {step} loss: {1 + step / 7:.3f}")
        if step % 5 == 0:
            lines.append(f"⚠️ gradient warning at step {step}: grad_norm={2500 + step}.5")
    found = warnings_of(log_of("\n".join(lines)))
    assert found is not None
    assert (found.count, found.steps, found.interval) == (40, 200, 5)
    assert found.share_of_checks == 1.0
    del lines[-8:]
    lines = [one for one in lines if "step 100:" not in one or "warning" not in one]
    found = warnings_of(log_of("\n".join(lines)))
    assert found is not None
    assert found.share_of_checks is not None
    assert found.share_of_checks < 1.0


DUMP = "lr: 0.0005\nloss_cls: 2.0\nloss_pts: 5.0\nmax_epochs: 24\n"
EPOCHS = "".join(f"Epoch {one} loss: {one}.5 loss_cls: 0.25\n" for one in range(1, 20))


@pytest.mark.parametrize(
    "head",
    [
        DUMP,
        f"==== config ====\n{DUMP}================\n",
        f"==== config ====\n{DUMP}",
        f"## 参数配置\n{DUMP}",
        f"Arguments:\n{DUMP}",
        f"2024-01-01 10:00:00 INFO 训练参数：\n{DUMP}\n",
        "Namespace(lr=0.0005, loss_cls=2.0, max_epochs=24, seed=0)\n",
        "hyperparameters: lr=0.0005, loss_cls=2.0, max_epochs=24, batch_size=4\n",
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_a_dump_of_settings_is_no_measurement(head: str, together: bool, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(head + EPOCHS, encoding="utf-8")
    builder = Builder()
    builder.start(str(path), "text")
    FreeText().read(path, builder, together=together)
    builder.finish()
    log = builder.build()
    assert [one.value for one in log if one.term == "total"] == [e + 0.5 for e in range(1, 20)]
    assert {one.value for one in log if one.term == "cls"} == {0.25}
    assert len(log) == 2 * 19
    named = {one.where: one.values for one in log.statements if one.kind == "setting"}
    if "Namespace" not in head:
        assert named["loss_cls"] == (2.0,)
        assert named["max_epochs"] == (24.0,)


@pytest.mark.parametrize(
    "text",
    [
        "loss: 0.5\nacc: 0.9\nlr: 0.001\n" + EPOCHS,  # the first epoch is printed at its end
        "loss: 0.5 acc: 0.9 lr: 0.001 batch_size: 4\n" * 3 + EPOCHS,
        "# Report\nloss: 0.5\nbatch_size: 16\nmax_epochs: 24\nacc: 0.9\nlr: 0.001\n" + EPOCHS,
    ],
)
def test_values_before_the_first_place_are_kept(text: str) -> None:
    assert [one.value for one in log_of(text)][:3] >= [0.5, 0.9, 0.001]
    assert triples(text)[0] == (None, "total", 0.5)


def test_a_text_without_any_place_is_read() -> None:
    found = triples("loss: 0.5\nacc: 0.9\nlr: 0.001\n")
    assert found == [(None, "total", 0.5), (None, "accuracy", 0.9), (None, "lr", 0.001)]


def test_settings_alone_are_no_log() -> None:
    with pytest.raises(UnknownFormat):
        log_of("Arguments:\nlr: 0.0005\nmax_epochs: 24\n")


def test_many_lines_without_a_place_are_not_all_held_back(tmp_path: Path) -> None:
    text = "".join(f"loss_a: {i}.5 loss_b: 0.25\n" for i in range(3000))
    together, alone = both("text", mm_logs.write(tmp_path / "x", text))
    assert len(together[0]) == 6000
    assert together == alone
