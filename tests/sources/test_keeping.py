"""Small files stay in memory while they are wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptools.errors import CorruptFile
from ckptools.sources import keeping
from ckptools.sources.keeping import Kept
from ckptools.sources.local import LocalSource, open_source
from ckptools.types.container import Container

CONTENT = bytes(range(256)) * 10


def container(path: Path) -> tuple[Container, LocalSource]:
    path.write_bytes(CONTENT)
    source = open_source(path)
    return Container(str(path), "test", len(CONTENT), None, source), source


def from_disk(source: LocalSource, path: Path) -> bool:
    """Return whether a read sees what the file holds by now."""
    path.write_bytes(CONTENT[::-1])
    piece = bytearray(5)
    source.readinto_at(3, memoryview(piece))
    assert bytes(piece) == source.read_at(3, 5)
    path.write_bytes(CONTENT)
    return bytes(piece) != CONTENT[3:8]


def test_what_is_kept_is_not_read_again(tmp_path: Path) -> None:
    (one, source), (other, second) = (container(tmp_path / name) for name in "ab")
    kept = Kept()
    kept.keep(one, other)
    assert not from_disk(source, tmp_path / "a")
    assert not from_disk(second, tmp_path / "b")
    kept.keep(other)
    assert from_disk(source, tmp_path / "a")
    assert not from_disk(second, tmp_path / "b")
    kept.keep()
    assert from_disk(second, tmp_path / "b")


def test_large_files_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SMALL", len(CONTENT) - 1)
    one, source = container(tmp_path / "a")
    Kept().keep(one)
    assert from_disk(source, tmp_path / "a")


def test_ranges_outside_are_refused_as_ever(tmp_path: Path) -> None:
    _, source = container(tmp_path / "a")
    source.keep()
    with pytest.raises(CorruptFile):
        source.read_at(len(CONTENT) - 1, 2)
    with pytest.raises(CorruptFile):
        source.readinto_at(-1, memoryview(bytearray(2)))


def test_a_file_that_shrank_is_not_kept(tmp_path: Path) -> None:
    one, source = container(tmp_path / "a")
    (tmp_path / "a").write_bytes(CONTENT[:9])
    Kept().keep(one)
    with pytest.raises(CorruptFile):
        source.read_at(0, 20)
