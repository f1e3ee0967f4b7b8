"""Copies and fresh bytes add up to the file meant, with and without the kernel's help."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.errors import CorruptFile
from ckptools.surgery import kernel_copy, segments
from ckptools.surgery.identity import Identity
from ckptools.surgery.output import Moved, Output, followed
from ckptools.surgery.segments import Copy, Fresh, fresh, patched, write


def written(
    folder: Path, source: bytes, parts: list[segments.Segment]
) -> tuple[bytes, list[Moved]]:
    (folder / "source").write_bytes(source)
    with (
        (folder / "source").open("rb") as old,
        (folder / "new").open("w+b") as new,
        ThreadPoolExecutor(1) as pool,
    ):
        output = Output(new, old.fileno())
        with followed(output, pool) as hashed:
            write(parts, output)
        content = (folder / "new").read_bytes()
        assert hashed.result() == Identity(len(content), hashlib.sha256(content).hexdigest())
    return content, output.moved


@settings(deadline=None)
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


def refusing(problem: int | None) -> Callable[..., int]:
    def refuse(*_: object) -> int:
        if problem is None:
            raise AttributeError
        raise OSError(problem, "not here")

    return refuse


@pytest.mark.parametrize("calls", [("copy_file_range",), ("copy_file_range", "sendfile")])
@pytest.mark.parametrize("problem", [errno.ENOSYS, errno.EXDEV, None])
def test_without_the_kernels_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: int | None, calls: tuple[str, ...]
) -> None:
    for name in calls:
        monkeypatch.setattr(os, name, refusing(problem), raising=False)
    monkeypatch.setattr(kernel_copy, "_BUFFER", 3)
    result, _ = written(tmp_path, b"0123456789", [Copy(2, 8), fresh(b"ab"), Copy(0, 4)])
    assert result == b"23456789ab0123"


@pytest.mark.parametrize("missing", [(), ("copy_file_range",), ("copy_file_range", "sendfile")])
def test_a_source_that_shrinks_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    for name in missing:
        monkeypatch.setattr(os, name, refusing(None))
    with pytest.raises(CorruptFile, match="shorter"):
        written(tmp_path, b"0123", [Copy(2, 8)])


def test_overlaps_and_wrong_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="overlaps"):
        patched(10, [(0, fresh(b"abc")), (2, fresh(b"x"))])
    with pytest.raises(ValueError, match="overlaps"):
        patched(10, [(8, fresh(b"abc"))])
    with pytest.raises(ValueError, match="2 fresh bytes instead of 5"):
        written(tmp_path, b"", [Fresh(5, lambda: [b"ab"])])
