"""Measurements survive the way to disk and back; broken files are refused."""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptools.errors import CkptoolsError, CorruptFile, MeasureError, OpenError, WouldOverwrite
from ckptools.stats import measure, measures_file
from ckptools.stats.measures_file import Saved, load, save
from ckptools.stats.plain_json import decode, encode
from ckptools.types.checkpoint import Checkpoint, RunState
from ckptools.types.container import Fault, GlobalUse
from ckptools.types.measurements import Measurements, Statistics
from ckptools.types.tree import Global, Instance
from tests.builders.arrays import ArrayFile, adam_state, checkpoint_of


def sample(path: Path) -> tuple[Checkpoint, Measurements]:
    file = ArrayFile(path / "weights.bin")
    rng = np.random.default_rng(0)
    w = rng.standard_normal((40, 30)).astype(np.float32)
    spoiled = w.copy()
    spoiled[0, 0] = np.nan
    tied = file.add(w)
    optimizer = adam_state(
        file, {"exp_avg": w, "exp_avg_sq": w * w}, lr=math.inf, odd=Instance(Global("a", "B"))
    )
    arrays: dict[str, Any] = {
        "w": tied,
        "again": tied,
        "nan": spoiled,
        "empty": np.zeros((0, 3), np.float32),
        "huge": np.full((2, 2), 1.5e308),
        "index": np.arange(5),
        "odd": (np.zeros(3, np.uint8), "quint4x2"),
        "\ud800\u202e名": w[0],
    }
    checkpoint = checkpoint_of(file.path, arrays, file=file, optimizers=[optimizer])
    run = RunState(
        epoch=3, step=99, hyperparameters={"lr": 1e-3, "betas": (0.9, math.nan), 5: [None]}
    )
    container = checkpoint.container
    object.__setattr__(
        container, "faults", (Fault("crc-mismatch", "data/1", "bad", evidence={"n": 2}),)
    )
    object.__setattr__(container, "globals", (GlobalUse("os.system", "dangerous", 2),))
    object.__setattr__(checkpoint, "run", run)
    return checkpoint, measure(checkpoint, spectrum=True)


def saved(path: Path) -> tuple[Path, Checkpoint, Measurements]:
    checkpoint, measurements = sample(path)
    save(measurements, checkpoint, path / "kept.measures")
    return path / "kept.measures", checkpoint, measurements


def plain(statistics: Statistics) -> dict[str, Any]:
    fields = {name: getattr(statistics, name) for name in Statistics.__slots__}
    fields["sketch"] = [part.tolist() for part in statistics.sketch]
    return fields


def test_everything_comes_back(tmp_path: Path) -> None:
    path, checkpoint, measurements = saved(tmp_path)
    back = load(path)
    assert {key: plain(one) for key, one in back.measurements.tensors.items()} == {
        key: plain(one) for key, one in measurements.tensors.items()
    }
    one, other = back.measurements.slots[0, 0], measurements.slots[0, 0]
    assert {slot: plain(found) for slot, found in one.statistics.items()} == {
        slot: plain(found) for slot, found in other.statistics.items()
    }
    for name in ("next_update_ratio", "direction_rms", "cosine", "gradient_norm"):
        assert getattr(one, name) == getattr(other, name)
    assert back.measurements.not_measured == measurements.not_measured != {}
    again = [(t.name, t.key, t.ref.dtype, t.ref.shape) for t in back.checkpoint.tensors()]
    assert again == [(t.name, t.key, t.ref.dtype, t.ref.shape) for t in checkpoint.tensors()]
    assert back.checkpoint.container.faults == checkpoint.container.faults
    assert back.checkpoint.container.globals == checkpoint.container.globals
    assert back.checkpoint.path == checkpoint.path


def test_run_state_and_settings_come_back(tmp_path: Path) -> None:
    back = load(saved(tmp_path)[0]).checkpoint
    assert (back.run.epoch, back.run.step) == (3, 99)
    assert back.run.hyperparameters["lr"] == 1e-3
    assert math.isnan(back.run.hyperparameters["betas"][1])
    assert back.run.hyperparameters[5] == [None]
    group = back.optimizers[0].groups[0]
    assert group.settings["lr"] == math.inf
    assert group.settings["odd"] == "<a.B>"
    assert group.settings["betas"] == (0.9, 0.999)
    assert back.optimizers[0].states[0].step == 10


def test_values_are_gone_and_ties_are_kept(tmp_path: Path) -> None:
    back = load(saved(tmp_path)[0]).checkpoint
    w, again, *_ = back.tensors()
    assert not w.ref.readable
    assert w.ref.unreadable == measures_file.UNREADABLE
    assert w.ref.storage is not None
    assert again.ref.storage is not None
    assert w.ref.storage.source.identity == again.ref.storage.source.identity
    with pytest.raises(MeasureError, match="only its measurements"):
        w.ref.storage.source.read_at(0, 4)
    assert set(measure(back).not_measured.values()) >= {measures_file.UNREADABLE}


def test_what_was_loaded_can_be_saved_again(tmp_path: Path) -> None:
    path, *_ = saved(tmp_path)
    first = load(path)
    save(first.measurements, first.checkpoint, path)
    second = load(path)
    assert [plain(a) for a in second.measurements.tensors.values()] == [
        plain(a) for a in first.measurements.tensors.values()
    ]


def test_nothing_but_a_measures_file_is_overwritten(tmp_path: Path) -> None:
    path, checkpoint, measurements = saved(tmp_path)
    save(measurements, checkpoint, path)
    before = (tmp_path / "weights.bin").read_bytes()
    with pytest.raises(WouldOverwrite):
        save(measurements, checkpoint, tmp_path / "weights.bin")
    assert (tmp_path / "weights.bin").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kept.measures", "weights.bin"]


def test_a_folder_that_is_not_there_is_a_write_error(tmp_path: Path) -> None:
    checkpoint, measurements = sample(tmp_path)
    with pytest.raises(CkptoolsError, match="cannot be written"):
        save(measurements, checkpoint, tmp_path / "no" / "folder")


def test_it_is_recognised_by_content(tmp_path: Path) -> None:
    path, *_ = saved(tmp_path)
    assert measures_file.is_measures_file(path)
    assert not measures_file.is_measures_file(tmp_path / "weights.bin")
    assert not measures_file.is_measures_file(tmp_path / "missing")


def test_a_missing_file_is_no_corrupt_one(tmp_path: Path) -> None:
    with pytest.raises(OpenError) as caught:
        load(tmp_path / "missing")
    assert not isinstance(caught.value, CorruptFile)


def rewritten(path: Path, change: Callable[[Any], Any]) -> Path:
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    document = change(json.loads(contents["ckptools-measures.json"]))
    contents["ckptools-measures.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def _set(*route: Any) -> Callable[[Any], Any]:
    """Return a change that puts the last of ``route`` where the others lead."""

    def change(document: Any) -> Any:
        inner = document
        for step in route[:-2]:
            inner = inner[step]
        inner[route[-2]] = route[-1]
        return document

    return change


TENSOR = ("sets", 0, "tensors", 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: [],
        lambda document: "x",
        lambda document: {},
        _set("schema", "other/1"),
        _set("path", 3),
        _set(*TENSOR, "name", None),
        _set(*TENSOR, "ref", "dtype", "float13"),
        _set(*TENSOR, "ref", "shape", ["x"]),
        _set(*TENSOR, "ref", "storage", [1]),
        _set(*TENSOR, "statistics", "mean", "large"),
        _set(*TENSOR, "statistics", "numel", None),
        _set(*TENSOR, "statistics", "sketch", [1, 2]),
        _set("optimizers", 0, "groups", 0, "unknown", 1),
        _set("run", {"$tuple": 5}),
        _set("run", {"$odd": 5}),
        _set("not_measured", [["a"]]),
        _set("container", "size_bytes", {}),
    ],
    ids=range(17),
)
def test_a_document_that_makes_no_sense_is_refused(
    change: Callable[[Any], Any], tmp_path: Path
) -> None:
    path, *_ = saved(tmp_path)
    with pytest.raises(CorruptFile, match="no intact measures file"):
        load(rewritten(path, change))


def test_a_deep_document_is_refused(tmp_path: Path) -> None:
    path, *_ = saved(tmp_path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["ckptools-measures.json"] = b'{"schema":' + b"[" * 200_000
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(CorruptFile):
        load(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, *_ = saved(tmp_path)
    monkeypatch.setattr(measures_file, "_LARGEST", 1000)
    with pytest.raises(CorruptFile, match="unpacks"):
        load(path)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_and_missing_bytes_are_refused_or_harmless(
    data: st.DataObject, tmp_path: Path
) -> None:
    path = tmp_path / "whole.measures"
    if not path.exists():
        checkpoint, measurements = sample(tmp_path)
        save(measurements, checkpoint, path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    broken = tmp_path / "broken.measures"
    broken.write_bytes(bytes(content))
    with contextlib.suppress(CkptoolsError):
        assert isinstance(load(broken), Saved)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(value=VALUES | st.dictionaries(st.integers() | st.text(), VALUES))
def test_plain_values_survive_json(value: Any) -> None:
    assert decode(json.loads(json.dumps(encode(value)))) == value


def test_what_is_too_deep_or_unknown_becomes_a_remark() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert "..." in json.dumps(encode(deep))
    assert decode(encode(object())) == "<object>"
