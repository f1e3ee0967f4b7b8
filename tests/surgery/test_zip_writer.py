"""The archive we write is one that torch, zipfile and our own reader accept."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptools.surgery import zip_writer
from ckptools.surgery.zip_writer import ALIGNMENT, TorchZipWriter

records = st.lists(
    st.tuples(st.text("abc/ü_0", min_size=1, max_size=20), st.binary(max_size=300)),
    unique_by=lambda record: record[0],
    max_size=8,
)


def written(pairs: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    writer = TorchZipWriter(file, "folder")
    for name, payload in pairs:
        start = writer.add(name, [payload[:7], payload[7:]], len(payload))
        assert file.getvalue()[start : start + len(payload)] == payload
    writer.finish()
    return file.getvalue()


@given(records)
def test_zipfile_reads_every_record_back_aligned(pairs: list[tuple[str, bytes]]) -> None:
    raw = written(pairs)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"folder/{name}" for name, _ in pairs]
        for info, (_, payload) in zip(archive.infolist(), pairs, strict=True):
            assert archive.read(info) == payload
            assert info.compress_type == zipfile.ZIP_STORED
            local = raw[info.header_offset : info.header_offset + 30]
            start = info.header_offset + 30 + int.from_bytes(local[26:28], "little")
            assert (start + int.from_bytes(local[28:30], "little")) % ALIGNMENT == 0


def test_a_copy_of_torchs_own_file_differs_in_nothing(tmp_path: Path) -> None:
    """Same records, same order: the same bytes as torch.save wrote."""
    path = tmp_path / "model.pth"
    tensors = {"w": torch.arange(5.0), "empty": torch.zeros(0), "b": torch.ones(70).bfloat16()}
    torch.save(tensors, path)
    with zipfile.ZipFile(path) as archive:
        pairs = [(i.filename.removeprefix("model/"), archive.read(i)) for i in archive.infolist()]
    file = io.BytesIO()
    writer = TorchZipWriter(file, "model")
    for name, payload in pairs:
        writer.add(name, [payload], len(payload))
    writer.finish()
    ours, theirs = file.getvalue(), path.read_bytes()
    assert ours == theirs


def test_records_above_four_gigabytes_use_zip64(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the limit lowered, sizes and offsets go through the wide fields and still read."""
    monkeypatch.setattr(zip_writer, "_WIDE", 100)
    pairs = [("version", b"3\n"), ("big", b"x" * 5000), ("far", b"yz")]
    raw = written(pairs)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert [archive.read(info) for info in archive.infolist()] == [data for _, data in pairs]
    path = tmp_path / "wide.pth"
    path.write_bytes(raw)
    reader = torch._C.PyTorchFileReader(str(path))
    assert [reader.get_record(name) for name, _ in pairs] == [data for _, data in pairs]


def test_chunks_must_add_up() -> None:
    writer = TorchZipWriter(io.BytesIO())
    with pytest.raises(ValueError, match="2 bytes instead of 3"):
        writer.add("a", [b"ab"], 3)
