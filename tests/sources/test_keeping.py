"""Small files stay in memory while they are wanted, and of larger ones the smallest tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from ckptools.errors import CorruptFile
from ckptools.sources import keeping
from ckptools.sources.keeping import Kept
from ckptools.sources.local import LocalSource, open_source
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState
from ckptools.types.container import Container
from ckptools.types.source import Source
from ckptools.types.tensor import Storage, TensorRef

CONTENT = bytes(range(256)) * 10


def checkpoint(path: Path, *refs: TensorRef) -> tuple[Checkpoint, LocalSource]:
    """Return a checkpoint of one file, whose optimizer holds these tensors as slots."""
    path.write_bytes(CONTENT)
    source = open_source(path)
    placed = [
        replace(ref, storage=replace(ref.storage, source=source)) for ref in refs if ref.storage
    ]
    states = tuple(ParameterState(i, 0, i, {"exp_avg": ref}) for i, ref in enumerate(placed))
    optimizer = OptimizerState("optimizer", "Adam", None, (), states)
    container = Container(str(path), "test", len(CONTENT), None, source)
    return Checkpoint(str(path), container, "test", optimizers=(optimizer,)), source


def lies(start: int, *shape: int, **other: Any) -> TensorRef:
    """Return a tensor of bytes at a place of the file; its source is put in later."""
    nbytes = int(np.prod(shape))
    storage = Storage("data", cast(Source, None), start, nbytes, nbytes)
    strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    return replace(TensorRef("uint8", shape, strides, 0, storage), **other)


def from_disk(source: LocalSource, path: Path, start: int = 3, length: int = 5) -> bool:
    """Return whether a read sees what the file holds by now."""
    path.write_bytes(CONTENT[::-1])
    piece = bytearray(length)
    source.readinto_at(start, memoryview(piece))
    assert bytes(piece) == source.read_at(start, length)
    path.write_bytes(CONTENT)
    return bytes(piece) != CONTENT[start : start + length]


def test_what_is_kept_is_not_read_again(tmp_path: Path) -> None:
    (one, source), (other, second) = (checkpoint(tmp_path / name) for name in "ab")
    kept = Kept()
    kept.keep(one, other)
    assert not from_disk(source, tmp_path / "a")
    assert not from_disk(second, tmp_path / "b")
    kept.keep(other)
    assert from_disk(source, tmp_path / "a")
    assert not from_disk(second, tmp_path / "b")
    kept.keep()
    assert from_disk(second, tmp_path / "b")


def test_of_large_files_the_smallest_tensors_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "SMALL", 270)
    refs = lies(0, 200), lies(1000, 8, 10), lies(1080, 60), lies(300, 100), lies(1100, 10)
    one, source = checkpoint(tmp_path / "a", *refs)
    kept = Kept()
    kept.keep(one)
    path = tmp_path / "a"
    assert not from_disk(source, path, 1000, 140)  # two that touch, in one read
    assert not from_disk(source, path, 300, 100)
    assert from_disk(source, path, 299, 5)
    assert from_disk(source, path, 390, 11)
    assert from_disk(source, path, 1139, 2)
    assert from_disk(source, path, 0, 200)  # more than is left
    kept.keep()
    assert from_disk(source, path, 1000, 140)


def test_strided_and_deflated_tensors_are_kept_with_all_that_they_need(tmp_path: Path) -> None:
    strided = lies(507, 4, 5, strides=(1, 4))
    deflated = lies(900, 2000)
    assert deflated.storage is not None
    deflated = replace(deflated, storage=replace(deflated.storage, deflated=30))
    _, source = found = checkpoint(tmp_path / "a", strided, deflated)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping, "SMALL", 60)
        Kept().keep(found[0])
    assert not from_disk(source, tmp_path / "a", 507, 20)
    assert not from_disk(source, tmp_path / "a", 900, 30)
    assert from_disk(source, tmp_path / "a", 506, 20)
    assert from_disk(source, tmp_path / "a", 901, 30)


def test_ranges_outside_are_refused_as_ever(tmp_path: Path) -> None:
    _, source = checkpoint(tmp_path / "a")
    source.keep([(0, len(CONTENT))])
    with pytest.raises(CorruptFile):
        source.read_at(len(CONTENT) - 1, 2)
    with pytest.raises(CorruptFile):
        source.readinto_at(-1, memoryview(bytearray(2)))


def test_a_file_that_shrank_is_not_kept(tmp_path: Path) -> None:
    one, source = checkpoint(tmp_path / "a")
    (tmp_path / "a").write_bytes(CONTENT[:9])
    Kept().keep(one)
    with pytest.raises(CorruptFile):
        source.read_at(0, 20)
