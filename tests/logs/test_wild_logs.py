"""Logs of trainers for which no reader was written."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ckptools.errors import CorruptFile
from ckptools.logs import read
from ckptools.types.records import Log
from tests.builders import mm_logs
from tests.builders.training_records import log_of
from tests.builders.wild_logs import WILD
from tests.logs.test_learning import both

PLAIN = "Epoch 1/2 - train_loss: 2.5 - val_loss: 2.75\r\nEpoch 2/2 - train_loss: 2.25\r\n"


def rows(log: Log) -> list[tuple[object, ...]]:
    return [(one.phase, one.epoch, one.iter, one.step, one.term, one.value) for one in log]


@pytest.mark.parametrize("name", WILD)
def test_what_a_trainer_prints_is_read(name: str) -> None:
    wild = WILD[name]
    log = log_of(wild.text)
    found = rows(log)
    assert [one for one in wild.rows if one not in found] == []
    assert len(found) == wild.records
    settings = {(one.where, one.values[0]) for one in log.statements if one.kind == "setting"}
    assert set(wild.settings) <= settings
    assert log.segments == 1


@pytest.mark.parametrize("name", WILD)
def test_together_as_line_by_line(name: str, tmp_path: Path) -> None:
    path = mm_logs.write(tmp_path / "x", WILD[name].text * 30)
    together, alone = both("text", path)
    assert together[0] == alone[0]
    assert together[2:] == alone[2:]


def test_other_names_in_an_entry_do_not_hide_a_plain_sum() -> None:
    from ckptools.logs.audit import audit

    found = audit(log_of(WILD["detectron2"].text)).components
    assert found is not None
    assert found.method == "plain sum"
    assert found.weights == {"cls": 1.0, "box_reg": 1.0}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings(encoding: str, packed: bool, tmp_path: Path) -> None:
    content = (PLAIN + "第3轮，训练损失：2.125，学习率：0.001\r\n").encode(encoding)
    path = tmp_path / "train.log"
    path.write_bytes(gzip.compress(content) if packed else content)
    log = read(path)
    assert log.sources == (str(path),)
    assert [one.value for one in log] == [2.5, 2.75, 2.25, 2.125, 0.001]


@pytest.mark.parametrize(
    "content", [gzip.compress(b"x" * 999)[:-9], gzip.compress(gzip.compress(b"x"))]
)
def test_what_cannot_be_unpacked_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "train.log.gz"
    path.write_bytes(content)
    with pytest.raises(CorruptFile) as told:
        read(path)
    assert told.value.where == str(path)


def test_errors_of_a_packed_log_name_the_log(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b'{"loss": 1.0}\nno\nno\n'))
    with pytest.raises(CorruptFile, match=r"x\.gz, line 2"):
        read(path)
    path.write_bytes(gzip.compress(b'{"loss": 1.0}\n{"loss": 1.0}\nno\n'))
    assert str(path) in read(path).not_read[0]


def test_layers_in_words_are_layers() -> None:
    found = {(one.layer, one.term) for one in log_of(WILD["layers"].text)}
    assert {(0, "cls"), (0, "pts"), (1, "cls"), (1, "pts"), (None, "cls")} <= found


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("epoch;loss;val_loss\n1;2.5;3.5\n2;2.25;3.25\n", "csv"),
        (",epoch,loss,val_loss,time\n0,1,2.5,3.5,00:12\n1,2,2.25,3.25,00:12\n", "csv"),
        ('{"loss": [2.5, 2.25], "val_loss": [3.5, 3.25], "epochs": 2}\n', "json-history"),
        ('{\n "loss": [\n  2.5, 2.25],\n "val_loss": [3.5, 3.25]\n}\n', "json-history"),
    ],
)
def test_tables_of_other_makes(text: str, kind: str) -> None:
    log = log_of(text)
    assert log.formats == (kind,)
    assert [one[:2] + one[4:] for one in rows(log)] == [
        ("train", 1.0, "total", 2.5),
        ("val", 1.0, "total", 3.5),
        ("train", 2.0, "total", 2.25),
        ("val", 2.0, "total", 3.25),
    ]


def test_lists_inside_of_lines_stay_lists() -> None:
    log = log_of('{"loss": [2.5, 2.25], "epoch": 1}\n{"loss": [2.0, 1.5], "epoch": 2}\n')
    assert log.formats == ("json-lines",)
    assert len(log) == 4
