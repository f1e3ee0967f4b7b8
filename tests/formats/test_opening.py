"""Files that are no checkpoints are told what they look like instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptools.errors import UnknownFormat
from ckptools.formats import open_container

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"", "empty"),
        (POINTER, "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "download went wrong"),
        (b"\x1f\x8b\x08" + bytes(30), "unpack it first"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5"),
        (b"GG", "is it a checkpoint at all"),
    ],
)
def test_what_it_looks_like(content: bytes, advice: str, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(UnknownFormat) as caught:
        open_container(str(tmp_path / "model.pth"))
    assert advice in str(caught.value.next)
