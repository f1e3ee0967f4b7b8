"""Excerpts in the manner of logs that other trainers print, written for the tests.

Each has what it must be read as: (phase, epoch, iter, step, term, value) of its first record of
some terms, and how many records there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Row = tuple[str, float | None, int | None, int | None, str, float]


@dataclass(frozen=True)
class Wild:
    """A log, how many records it holds, and some of them."""

    text: str
    records: int
    rows: tuple[Row, ...]
    settings: tuple[tuple[str, float], ...] = ()


def _fall(step: int, level: float = 2.0) -> float:
    return round(level + 8 * math.exp(-step / 8), 4)


def _detectron2() -> Wild:
    head = (
        "[07/12 14:03:21 d2]: Rank of current process: 0. World size: 8\n"
        "[07/12 14:03:21 d2]: Running with full config:\nSOLVER:\n  BASE_LR: 0.02\n"
        "  CLIP_GRADIENTS:\n    CLIP_VALUE: 1.0\n  IMS_PER_BATCH: 16\n  MAX_ITER: 90000\n"
        "[07/12 14:03:25 d2.engine.train_loop]: Starting training from iteration 0\n"
    )
    lines = [
        f"[07/12 14:03:{i:02} d2.utils.events]:  eta: 1 day, 9:32:{i:02}  iter: {i * 20 + 19}  "
        f"total_loss: {3 * _fall(i):.4f}  loss_cls: {_fall(i):.4f}  loss_box_reg: "
        f"{2 * _fall(i):.4f}    time: 0.3419  data_time: 0.0147   lr: 0.001  max_mem: 3023M\n"
        for i in range(20)
    ]
    rows: tuple[Row, ...] = (
        ("train", None, None, 19, "total", 3 * _fall(0)),
        ("train", None, None, 19, "cls", _fall(0)),
    )
    return Wild(head + "".join(lines), 5 * 20, rows, (("BASE_LR", 0.02), ("MAX_ITER", 90000)))


def _fairseq() -> Wild:
    lines = [
        "2021-03-04 10:11:12 | INFO | fairseq_cli.train | num. model params: 60,526,080 "
        "(num. trained: 60,526,080)\n"
    ]
    for epoch in (1, 2):
        lines += [
            f"2021-03-04 10:12:00 | INFO | train_inner | epoch {epoch:03}:    100 / 1101 "
            f"loss={_fall(epoch)}, ppl=36.7, num_updates={(epoch - 1) * 1101 + 100}, gnorm=2.7\n",
            f"2021-03-04 10:20:10 | INFO | valid | epoch {epoch:03} | valid on 'valid' subset | "
            f"loss {_fall(epoch, 3.0)} | ppl 91.16 | num_updates {epoch * 1101}\n",
        ]
    rows: tuple[Row, ...] = (
        ("train", 1.0, 100, 100, "total", _fall(1)),
        ("train", 1.0, 100, 100, "grad_norm", 2.7),
        ("val", 1.0, None, 1101, "total", _fall(1, 3.0)),
    )
    return Wild("".join(lines), 2 * (3 + 2), rows)


def _megatron() -> Wild:
    head = (
        "using world size: 8, data-parallel-size: 8, tensor-model-parallel size: 1\n"
        "------------------------ arguments ------------------------\n"
        "  clip_grad ....................................... 1.0\n"
        "  lr .............................................. 0.00015\n"
        "-------------------- end of arguments ---------------------\n"
    )
    lines = [
        f" [2024-01-01 10:00:00] iteration {i:8}/    1000 | consumed samples: {i * 32:12} | "
        f"elapsed time per iteration (ms): 213.1 | learning rate: 1.5E-06 | lm loss: "
        f"{_fall(i):.6E} | loss scale: 65536.0 | grad norm: 1.250 |\n"
        for i in range(10, 31, 10)
    ]
    foot = " validation loss at iteration 30 | lm loss value: 3.5E+00 | lm loss PPL: 9.0E+01 | \n"
    rows: tuple[Row, ...] = (
        ("train", None, None, 10, "total", _fall(10)),
        ("train", None, None, 10, "scale", 65536.0),
        ("val", None, None, 30, "lm_value", 3.5),
    )
    return Wild(head + "".join(lines) + foot, 3 * 5 + 2, rows, (("clip_grad", 1.0),))


def _nanogpt() -> Wild:
    text = (
        "Overriding config with config/train.py:\nbatch_size = 64\nn_layer = 6\ndropout = 0.2\n"
        "learning_rate = 1e-3\nbeta2 = 0.99\n\ntokens per iteration will be: 16,384\n"
        "found vocab_size = 65 (inside meta.pkl)\nnumber of parameters: 10.65M\n"
        "step 0: train loss 4.2874, val loss 4.2823\n"
        "iter 0: loss 4.2649, time 25000.93ms, mfu -100.00%\n"
        "iter 10: loss 3.2438, time 26.30ms, mfu 14.15%\n"
    )
    rows: tuple[Row, ...] = (
        ("train", None, None, 0, "total", 4.2874),
        ("val", None, None, 0, "total", 4.2823),
        ("train", None, None, 10, "total", 3.2438),
    )
    return Wild(text, 4, rows, (("batch_size", 64), ("learning_rate", 1e-3)))


def _timm() -> Wild:
    text = "".join(
        f"Train: {epoch} [{b:4}/1251 ({b * 100 // 1251:3}%)]  Loss: 6.9 (6.94)  Time: 0.654s, "
        f"1565.11/s  (0.702s, 1458.3/s)  LR: 1.0e-05  Data: 0.011 (0.055)\n"
        f"Test: [{b:4}/48]  Time: 1.876 (1.876)  Loss:   3.925 ( 3.925)  Acc@1:  22.6 ( 22.6)\n"
        for epoch, b in ((0, 0), (0, 50), (1, 0))
    )
    rows: tuple[Row, ...] = (
        ("train", 0.0, 0, None, "total", 6.9),
        ("train", 0.0, 50, None, "total", 6.9),
        ("test", 0.0, 0, None, "total", 3.925),
        ("test", 1.0, 0, None, "Acc@1", 22.6),
    )
    return Wild(text, 3 * (3 + 2), rows)


def _imagenet() -> Wild:
    text = (
        "Epoch: [0][  50/5005]\tTime  0.212 ( 0.243)\tData  0.001 ( 0.012)\tLoss 6.9e+00 (7.0e+00)"
        "\tAcc@1  10.16 (  8.20)\tAcc@5  25.00 ( 21.30)\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 0.0, 50, None, "total", 6.9),
        ("train", 0.0, 50, None, "Acc@5", 25.0),
    )
    return Wild(text, 3, rows)


def _lightning() -> Wild:
    text = "GPU available: True (cuda), used: True\nTPU available: False, using: 0 TPU cores\n" + (
        "".join(
            f"\rEpoch {e}: {b:3}%|##  | {b}/100 [00:01<00:01, 25.3it/s, v_num=3, "
            f"train_loss_step={_fall(b)}]\x1b[A"
            for e in range(2)
            for b in range(0, 101, 50)
        )
        + "\rEpoch 1: 100%|####| 100/100 [00:04<00:00, v_num=3, val_loss=2.5, "
        "train_loss_epoch=3.25]\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 0.0, 50, None, "total", _fall(50)),
        ("val", 1.0, 100, None, "total", 2.5),
        ("train", 1.0, 100, None, "total_epoch", 3.25),
    )
    return Wild(text, 6 + 2, rows)


def _keras() -> Wild:
    text = "".join(
        f"Epoch {e}/10\n\r 500/1875 [=====>......] - ETA: 4s - loss: 0.9 - accuracy: 0.5"
        "\r1875/1875 [===========] - 4s 2ms/step - loss: 0.8 - accuracy: 0.6 - val_loss: 1.1\n"
        for e in (1, 2)
    )
    rows: tuple[Row, ...] = (
        ("train", 1.0, 500, None, "total", 0.9),
        ("val", 2.0, 1875, None, "total", 1.1),
    )
    return Wild(text, 2 * 5, rows)


def _deepspeed() -> Wild:
    text = (
        "[2023-05-05 10:10:00,123] [INFO] [logging.py:96:log_dist] [Rank 0] step=10, skipped=0, "
        "lr=[9.6e-06, 4.8e-06], mom=[(0.9, 0.95), (0.9, 0.95)]\n"
    )
    return Wild(text, 2, (("train", None, None, 10, "lr", 9.6e-6),))


def _nodes() -> Wild:
    text = "".join(
        f"{rank}: 2024-03-01 10:00:00 INFO [node1:{rank}] cuda:{rank} train.py:88 - epoch=1 "
        f"step={step} loss={_fall(step)} gnorm=0.5\n"
        f"[rank{rank}]: step {step} | loss {_fall(step)} | lr 1.00e-04\n"
        for step in (10, 20)
        for rank in (0, 1)
    )
    rows: tuple[Row, ...] = (
        ("train", 1.0, None, 10, "total", _fall(10)),
        ("train", None, None, 20, "lr", 1e-4),
    )
    return Wild(text, 4 * 4, rows)


def _coloured() -> Wild:
    text = "".join(
        f"[rank0]:2024-08-01 10:00:00,123 - root - INFO - \x1b[31mstep: {i:2}  \x1b[32mloss: "
        f"{_fall(i):7.4f}  \x1b[34mtps: 3,712  \x1b[35mmfu: 13.5%\x1b[39m\n"
        for i in range(1, 4)
    )
    return Wild(text, 6, (("train", None, None, 1, "total", _fall(1)),))


def _columns() -> Wild:
    text = (
        "  epoch    train_loss    val_loss    time\n-------  ------------  ----------  ------\n"
        "      1        2.5000      2.7500   00:12\n      2        2.2500      2.6000   00:12\n"
        "\n      Epoch    GPU_mem   box_loss   cls_loss  Instances       Size\n"
        "\r        3/3      2.61G      1.061      0.981        120        640:  50%|#| 1/2 [00:01"
        "\n              Class     Images  Instances\n               all        128        929\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 1.0, None, None, "total", 2.5),
        ("val", 2.0, None, None, "total", 2.6),
        ("train", 3.0, None, None, "box", 1.061),
    )
    return Wild(text, 4 + 3, rows)


def _markdown() -> Wild:
    text = (
        "| Epoch | Train loss | Val loss |\n|:---:|---|---|\n| 1 | 2.5 | 2.7 |\n| 2 | 2.4 | - |\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 1.0, None, None, "total", 2.5),
        ("val", 1.0, None, None, "total", 2.7),
        ("train", 2.0, None, None, "total", 2.4),
    )
    return Wild(text, 3, rows)


def _chinese() -> Wild:
    text = (
        "开始训练，共 10 个 epoch，批大小：32，学习率：0.001\n"
        "2024-03-01 10:00:10 [信息] 训练轮数：1/5，步数：100/200，损失值：8.2023，"
        "分类损失：4.9953，耗时：12.3秒，剩余时间：3分20秒\n"
        "【验证】轮次1：平均损失＝9.2583，准确率＝81.25％，mAP＝0.112\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 1.0, 100, None, "total", 8.2023),
        ("train", 1.0, 100, None, "分类", 4.9953),
        ("val", 1.0, None, None, "accuracy", 81.25),
    )
    return Wild(text, 5, rows, (("学习率", 0.001),))


def _hugging_face() -> Wild:
    text = (
        "***** Running training *****\n  Num examples = 10,000\n  Num Epochs = 3\n"
        "  Instantaneous batch size per device = 8\n\n"
        "{'loss': 2.5, 'grad_norm': 1.25, 'learning_rate': 5e-05, 'epoch': 0.5}\n"
        "{'train_runtime': 62.1, 'train_samples_per_second': 48.2, 'train_loss': 3.2, 'epoch': 1}\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 0.5, None, None, "total", 2.5),
        ("train", 1.0, None, None, "total_avg", 3.2),
    )
    return Wild(text, 3 + 2, rows, (("Num Epochs", 3),))


def _phases() -> Wild:
    text = "".join(
        f"Epoch {e}\n  train_loss: 2.{e}\nValidation:\n  loss: 3.{e}\n  acc: 0.5\n" for e in (1, 2)
    ) + (
        "INFO:root:Epoch 3 Validation:\nINFO:root:loss: 3.5\nINFO:root:Epoch 4 loss: 2.5\n"
        "INFO:root:accuracy: 0.625\n=== Test ===\nloss: 4.5\nBest val loss: 0.125 at epoch 2\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 1.0, None, None, "total", 2.1),
        ("val", 1.0, None, None, "total", 3.1),
        ("val", 2.0, None, None, "accuracy", 0.5),
        ("val", 3.0, None, None, "total", 3.5),
        ("train", 4.0, None, None, "total", 2.5),
        ("train", 4.0, None, None, "accuracy", 0.625),
        ("test", 4.0, None, None, "total", 4.5),
        ("train", 2.0, None, None, "Best_val", 0.125),
    )
    return Wild(text, 2 * 3 + 5, rows)


def _brackets() -> Wild:
    text = (
        "[0/25][0/782] Loss_D: 1.5 Loss_G: 2.5\n[1/25][700/782] Loss_D: 1.25 Loss_G: 2.25\n"
        "[2,  2000] loss: 2.173\nEpoch [3/5], Step [100/600], Loss: 0.5\n"
        "Epoch 4/5 Batch 50/100 Loss: 0.25\n[训练] 第5轮 第300步 损失: 0.75\n"
        "Train:    6/80 (  7%) [ 101/3712 (  3%)]  Loss: 0.375 (0.37)\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 1.0, 700, None, "Loss_G", 2.25),
        ("train", 2.0, 2000, None, "total", 2.173),
        ("train", 3.0, 100, None, "total", 0.5),
        ("train", 4.0, 50, None, "total", 0.25),
        ("train", 5.0, None, 300, "total", 0.75),
        ("train", 6.0, 101, None, "total", 0.375),
    )
    return Wild(text, 2 * 2 + 5, rows)


def _by_epoch() -> Wild:
    text = (
        "| 指标 | Epoch 12 | Epoch 13 |\n|---|---|---|\n| loss_total | 36.2 | 35.96 |\n"
        "| mAP | - | 0.5 |\n\n| 参数 | 值 |\n|---|---|\n| lr | 0.0001 |\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 12.0, None, None, "total", 36.2),
        ("train", 13.0, None, None, "total", 35.96),
        ("train", 13.0, None, None, "mAP", 0.5),
    )
    return Wild(text, 3, rows)


def _nested() -> Wild:
    text = (
        "Config:\n  loss:\n    cls: 2.0\n  train:\n    epoch: 24\n    step: 100\n    aux: 0.5\n\n"
        "Epoch 1/24 loss: 0.5\nEpoch 2/24 loss: 0.25\n"
    )
    rows: tuple[Row, ...] = (("train", 1.0, None, None, "total", 0.5),)
    return Wild(text, 2, rows, (("aux", 0.5), ("epoch", 24)))


def _layers() -> Wild:
    text = "".join(
        f"{'=' * 20}\nEpoch {e}/20\n{'=' * 20}\n"
        "[Rank 0] Step 50/4689: loss_total=3.5 loss_cls=0.5\n"
        "    aux layer 0: cls=0.75, pts=8.5\n    aux_layer_1: cls=0.25, pts=4.5\n"
        "  Gradient norm: 2550.5 (clipped to 35.0)\n"
        for e in (12, 13)
    )
    rows: tuple[Row, ...] = (
        ("train", 12.0, None, 50, "cls", 0.5),
        ("train", 13.0, None, 50, "pts", 4.5),
        ("train", 13.0, None, 50, "grad_norm", 2550.5),
    )
    return Wild(text, 2 * 7, rows)


def _bars() -> Wild:
    text = (
        "| epoch   1 |  200/2983 batches | lr 20.00 | ms/batch 12.3 | loss  7.75 | ppl  2321.5\n"
        "| end of epoch   1 | time: 12.3s | valid loss  5.5 | valid ppl   244.7\n"
        "Training  [300/1000]  eta: 1:02:03  lr: 0.0001 (0.0001)  total_loss: 9.25 (9.1)\n"
        "(Runner pid=1234) step:20 - actor/pg_loss:0.125 - training/epoch:2\n"
    )
    rows: tuple[Row, ...] = (
        ("train", 1.0, 200, None, "total", 7.75),
        ("val", 1.0, 200, None, "total", 5.5),
        ("train", 1.0, 300, None, "total", 9.25),
        ("train", 2.0, 300, 20, "actor/pg", 0.125),
    )
    return Wild(text, 3 + 2 + 2 + 1, rows)


def _dicts() -> Wild:
    text = "".join(
        str({"epoch": e, "train": {"loss": 2.5, "acc": 0.5}, "val": {"loss": 3.5}}) + "\n"
        for e in (1, 2)
    )
    rows: tuple[Row, ...] = (
        ("train", 2.0, None, None, "total", 2.5),
        ("val", 2.0, None, None, "total", 3.5),
    )
    return Wild(text, 2 * 3, rows)


WILD: dict[str, Wild] = {
    made.__name__.strip("_"): made()
    for made in (
        _detectron2, _fairseq, _megatron, _nanogpt, _timm, _imagenet, _lightning, _keras,
        _deepspeed, _nodes, _coloured, _columns, _markdown, _chinese, _hugging_face,
        _phases, _brackets, _by_epoch, _nested, _layers, _bars, _dicts,
    )
}  # fmt: skip
