from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch

from ckptools.errors import CkptoolsError, CorruptFile
from ckptools.formats import open_container, verify_checksums
from ckptools.sources.arrays import iter_chunks, read_array
from ckptools.types.container import Container
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import entries, unwrap
from tests.builders import torch_files as files

VALUES = {
    "a": torch.arange(100.0),
    "b": torch.arange(200).to(torch.bfloat16),
    "empty": torch.empty(0),
    "c": torch.nn.Parameter(torch.arange(300.0)),
    "d": torch.arange(400.0)[::2],
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return files.save({"model": VALUES, "epoch": 3}, tmp_path / "archive.pth")


def tensors(container: Container) -> dict[str, TensorRef]:
    model = dict(entries(container.root) or [])["model"]
    return {key: unwrap(node) for key, node in entries(model) or []}


def spans(archive: Path) -> dict[str, tuple[int, int]]:
    """Return the first and last byte position of every record's payload."""
    return {
        record.name.removeprefix("archive/"): (
            record.storage.start,
            record.storage.start + record.storage.nbytes,
        )
        for record in open_container(str(archive)).records
    }


def test_truncation_at_every_region(archive: Path, tmp_path: Path) -> None:
    """At each cut exactly the tensors whose bytes are there are readable, and rightly read."""
    full = archive.stat().st_size
    where = spans(archive)
    clean = tensors(open_container(str(archive)))
    cuts = {full - 1, full - 30, full - 100}
    for start, end in where.values():
        cuts |= {start - 40, start - 1, start, (start + end) // 2, end - 1, end, end + 10, end + 24}
    for cut in sorted(cuts):
        if not where["data.pkl"][1] <= cut < full:
            continue
        container = open_container(str(files.truncate(archive, cut, tmp_path / "cut.pth")))
        (fault,) = [f for f in container.faults if f.kind == "truncated"]
        assert fault.scope == "container"
        missing = 0
        for name, ref in tensors(container).items():
            storage = clean[name].storage
            assert storage is not None
            there = storage.start + (ref.offset + _extent(ref)) * ref.itemsize <= cut
            if not VALUES[name].numel():
                continue
            assert ref.readable is there, (name, cut)
            if there:
                assert read_array(ref).astype("f8").tolist() == VALUES[name].double().tolist()
            else:
                missing += 1
                assert any(line.startswith(f"model.{name}:") for line in container.not_judged)
        assert len(container.not_judged) == missing == fault.evidence["tensors_missing"]


def _extent(ref: TensorRef) -> int:
    return 1 + sum((n - 1) * s for n, s in zip(ref.shape, ref.strides, strict=True))


def test_a_tensor_cut_in_the_middle_gives_its_first_part(archive: Path, tmp_path: Path) -> None:
    start, end = spans(archive)["data/3"]
    cut = files.truncate(archive, (start + end) // 2, tmp_path / "cut.pth")
    ref = tensors(open_container(str(cut)))["c"]
    assert ref.storage is not None
    assert (ref.storage.nbytes, ref.storage.available) == (1200, 600)
    chunks = iter_chunks(ref, 64)
    read: list[float] = []
    with pytest.raises(CorruptFile, match="600 of 1,200"):
        for chunk in chunks:
            read.extend(chunk.tolist())
    assert read == list(range(150))
    with pytest.raises(CorruptFile, match="600 of 1,200"):
        read_array(ref)


def test_other_values_of_the_checkpoint_survive(archive: Path, tmp_path: Path) -> None:
    cut = files.truncate(archive, spans(archive)["data/0"][0], tmp_path / "cut.pth")
    container = open_container(str(cut))
    assert dict(entries(container.root) or [])["epoch"] == 3
    assert container.format == "torch-zip"
    assert container.metadata["salvaged"] is True


def test_checksums_of_whole_records_are_known_after_salvage(archive: Path, tmp_path: Path) -> None:
    where = spans(archive)
    cut = files.truncate(archive, where["data/3"][0] + 5, tmp_path / "cut.pth")
    assert verify_checksums(open_container(str(cut))) == ()
    files.flip_bit(cut, where["data/0"][0] + 17, 4)
    (fault,) = verify_checksums(open_container(str(cut)))
    assert (fault.where, fault.evidence["byte"]) == ("archive/data/0", 17)


def test_a_cut_inside_the_pickle_is_refused(archive: Path, tmp_path: Path) -> None:
    start, end = spans(archive)["data.pkl"]
    for cut in range(start, end, 7):
        with pytest.raises(CorruptFile, match="nothing can be salvaged"):
            open_container(str(files.truncate(archive, cut, tmp_path / "cut.pth")))


def test_every_short_length_is_refused_or_salvaged(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "cut.pth"
    for cut in range(0, archive.stat().st_size, 13):
        files.truncate(archive, cut, target)
        try:
            container = open_container(str(target))
        except CkptoolsError:
            assert cut < spans(archive)["data.pkl"][1]
        else:
            assert [fault.kind for fault in container.faults] == ["truncated"]


def test_a_damaged_directory_loses_no_tensor(archive: Path) -> None:
    data = archive.read_bytes()
    files.flip_bit(archive, data.find(b"PK\x01\x02"), 0)
    container = open_container(str(archive))
    assert [fault.kind for fault in container.faults] == ["directory-damaged"]
    assert container.not_judged == ()
    assert all(ref.readable for ref in tensors(container).values())


def test_a_torn_header_ends_the_way(archive: Path, tmp_path: Path) -> None:
    start, _ = spans(archive)["data/1"]
    data = bytearray(archive.read_bytes())
    header = data.rfind(b"PK\x03\x04", 0, start)
    data[header : header + 4] = b"gone"
    cut = tmp_path / "cut.pth"
    cut.write_bytes(data[:-50])
    container = open_container(str(cut))
    found = tensors(container)
    assert found["a"].readable
    assert not found["c"].readable
    assert "no record follows" in container.faults[0].message


def test_headers_with_lengths_are_used(tmp_path: Path) -> None:
    """Archives that other tools wrote state lengths in front and have no descriptors."""
    source = files.save({"model": VALUES}, tmp_path / "archive.pth")
    path = files.write_records(tmp_path / "plain.pth", files.records(source))
    container = open_container(str(files.truncate(path, path.stat().st_size - 40, path)))
    assert all(ref.readable for ref in tensors(container).values())


def test_bytes_that_only_begin_like_an_archive(tmp_path: Path) -> None:
    for content in (b"PK\x03\x04", b"PK\x03\x04" + b"\xff" * 100, b"PK\x03\x04" + bytes(100)):
        path = tmp_path / "x.pth"
        path.write_bytes(content)
        with pytest.raises(CkptoolsError):
            open_container(str(path))


def test_a_pickle_of_unknown_length_may_be_large(tmp_path: Path) -> None:
    """The pickle is longer than what is read of it at first."""
    value = {"model": {**VALUES, **{f"n{i}": torch.ones(1) for i in range(1500)}}}
    archive = files.save(value, tmp_path / "archive.pth")
    cut = files.truncate(archive, archive.stat().st_size - 100, tmp_path / "cut.pth")
    container = open_container(str(cut))
    assert len(tensors(container)) == 1505
    assert all(ref.readable for ref in tensors(container).values())


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3000, 200)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_storages_come_before_the_pickle(tmp_path: Path) -> None:
    """Their lengths stand nowhere before the cut; their ends are found by what follows."""
    module = Block()
    torch.jit.script(module).save(str(tmp_path / "script.pt"))
    cut = tmp_path / "cut.pt"
    files.truncate(tmp_path / "script.pt", (tmp_path / "script.pt").stat().st_size - 300, cut)
    container = open_container(str(cut))
    assert container.format == "torchscript"
    assert {use.grade for use in container.globals} == {"known"}
    found = {key: unwrap(node) for key, node in entries(container.root) or []}
    assert read_array(found["linear.weight"]).tolist() == module.linear.weight.tolist()
    assert verify_checksums(container) == ()
    files.truncate(tmp_path / "script.pt", 1_000_000, cut)
    with pytest.raises(CorruptFile, match="nothing can be salvaged"):
        open_container(str(cut))


@pytest.mark.parametrize("streamed", [False, True])
def test_compressed_archives(streamed: bool, tmp_path: Path) -> None:
    source = files.save({"model": VALUES}, tmp_path / "archive.pth")
    path = tmp_path / "deflated.pth"
    with zipfile.ZipFile(Unseekable(path) if streamed else path, "w") as archive:
        for name, data in files.records(source).items():
            kind = zipfile.ZIP_STORED if name.endswith(".pkl") else zipfile.ZIP_DEFLATED
            archive.writestr(name, data, kind)
    files.truncate(path, path.stat().st_size - 60, path)
    container = open_container(str(path))
    for name, ref in tensors(container).items():
        assert read_array(ref).astype("f8").tolist() == VALUES[name].double().tolist()
    assert verify_checksums(container) == ()


class Unseekable(io.RawIOBase):
    """A file that is written like a pipe, so that lengths stand behind the records."""

    def __init__(self, path: Path) -> None:
        self.stream = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self.stream.write(data)

    def flush(self) -> None:
        if not self.stream.closed:
            self.stream.flush()

    def close(self) -> None:
        self.stream.close()
