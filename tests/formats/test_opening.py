"""Files that are no checkpoints are told what they look like instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptools.errors import UnknownFormat
from ckptools.formats import open_container
from ckptools.formats.other_kinds import QUOTED, listed
from tests.builders import event_files

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        (b"", "the file is empty", "fetch it again"),
        (bytes(5000), "begins with 4,096 zeros", "another copy"),
        (POINTER, "Git LFS", "git lfs pull"),
        (b"<!DOCTYPE html><title>404 Not Found</title>", "404 Not Found", "fetch it again"),
        (b'{"error":"Repository not found"}', "Repository not found", "no checkpoint is a text"),
        ("第 1 轮 损失 0.3\n".encode() * 400, "第 1 轮 损失 0.3", "ckptools log"),
        (b"\x1f\x8b\x08" + bytes(30), "gzip", "unpack it first"),
        (b"\x28\xb5\x2f\xfd" + bytes(30), "zstandard", "unpack it first"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5", "state dict"),
        (b"GGUF\3\0\0\0" + bytes(30), "GGUF", "made from"),
        (b"\x1c\0\0\0TFL3" + bytes(30), "TFLite", "made from"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(30), "ONNX", "made from"),
        (b"\x81\xa6params\x81" + bytes(30), "msgpack", "state dict"),
        (bytes(range(20)) + bytes.fromhex("57fb808b247547db"), "TensorFlow", "state dict"),
        (b"\x7fELF", "no reader recognises the content (", "is it a checkpoint at all"),
    ],
)
def test_what_it_is_instead(content: bytes, what: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(UnknownFormat) as caught:
        open_container(str(tmp_path / "model.pth"))
    assert what in caught.value.message
    assert advice in str(caught.value.next)


def test_real_event_files_are_told(tmp_path: Path) -> None:
    path = event_files.write(tmp_path / "events.out.tfevents.1.host", [])
    with pytest.raises(UnknownFormat, match="TensorBoard"):
        open_container(str(path))


def test_names_of_an_archive_are_told_and_counted() -> None:
    assert listed([]) == "nothing"
    assert listed(["a", "b"]) == "a, b"
    assert listed("abcde") == "a, b, c and 2 more"
    assert len(listed(["x" * 1000])) == QUOTED
