"""Copies and fresh bytes add up to the file meant, with and without the kernel's help."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.errors import CorruptFile
from ckptools.surgery import segments
from ckptools.surgery.segments import Copy, Fresh, Moved, fresh, patched, write


def written(
    folder: Path, source: bytes, parts: list[segments.Segment]
) -> tuple[bytes, list[Moved]]:
    (folder / "source").write_bytes(source)
    with (folder / "source").open("rb") as old, (folder / "new").open("wb") as new:
        moved = write(parts, old.fileno(), new)
    return (folder / "new").read_bytes(), moved


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=20)), max_size=5),
)
def test_patched_is_slice_assignment(
    tmp_path_factory: pytest.TempPathFactory, source: bytes, edits: list[tuple[int, bytes]]
) -> None:
    expected = bytearray(source)
    taken: set[int] = set()
    kept = []
    for start, data in edits:
        span = set(range(start, start + len(data)))
        if start + len(data) <= len(source) and not span & taken:
            taken |= span
            expected[start : start + len(data)] = data
            kept.append((start, fresh(data)))
    folder = tmp_path_factory.mktemp("segments")
    result, moved = written(folder, source, patched(len(source), kept))
    assert result == bytes(expected)
    for part in moved:
        assert (
            result[part.output : part.output + part.length]
            == source[part.source : part.source + part.length]
        )


@pytest.mark.parametrize("problem", [errno.ENOSYS, errno.EXDEV, None])
def test_without_the_kernels_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: int | None
) -> None:
    def refuse(*_: object) -> int:
        if problem is None:
            raise AttributeError
        raise OSError(problem, "not here")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    monkeypatch.setattr(segments, "_BUFFER", 3)
    result, _ = written(tmp_path, b"0123456789", [Copy(2, 8), fresh(b"ab"), Copy(0, 4)])
    assert result == b"23456789ab0123"


@pytest.mark.parametrize("kernel", [True, False])
def test_a_source_that_shrinks_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool
) -> None:
    if not kernel:
        monkeypatch.setattr(segments, "_kernel_copy", lambda *_: None)
    with pytest.raises(CorruptFile, match="shorter"):
        written(tmp_path, b"0123", [Copy(2, 8)])


def test_overlaps_and_wrong_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="overlaps"):
        patched(10, [(0, fresh(b"abc")), (2, fresh(b"x"))])
    with pytest.raises(ValueError, match="overlaps"):
        patched(10, [(8, fresh(b"abc"))])
    with pytest.raises(ValueError, match="2 fresh bytes instead of 5"):
        written(tmp_path, b"", [Fresh(5, lambda: [b"ab"])])
