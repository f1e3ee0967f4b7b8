"""One record gets new bytes: everything else in the archive stays as it was."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from ckptools.errors import OperationError
from ckptools.formats import open_container, verify_checksums
from ckptools.surgery import segments
from ckptools.surgery.output import Output
from ckptools.surgery.segments import fresh
from ckptools.surgery.zip_patch import replacements
from ckptools.types.container import Container


def rewritten(path: Path, payloads: dict[str, bytes], container: Container | None = None) -> Path:
    container = container or open_container(str(path))
    changes = replacements(container, {name: fresh(data) for name, data in payloads.items()})
    output = path.with_suffix(".new.pth")
    parts = segments.patched(path.stat().st_size, changes)
    with path.open("rb") as old, output.open("wb") as new:
        written = Output(new, old.fileno(), container.records)
        segments.write(parts, written)
        written.finish()
    return output


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    base = torch.arange(12.0)
    tensors = {"a": base[:6], "b": base[3:].view(3, 3), "c": torch.ones(5), "e": torch.zeros(0)}
    torch.save(tensors, path)
    return path


def test_nothing_replaced_is_the_same_file(model: Path) -> None:
    assert rewritten(model, {}).read_bytes() == model.read_bytes()


def test_a_replaced_record_changes_alone_and_all_its_views_follow(model: Path) -> None:
    new = torch.arange(12.0) * -1
    output = rewritten(model, {"model/data/0": new.numpy().tobytes()})
    with zipfile.ZipFile(model) as before, zipfile.ZipFile(output) as after:
        assert after.testzip() is None
        assert before.namelist() == after.namelist()
        for name in before.namelist():
            assert (before.read(name) == after.read(name)) == (name != "model/data/0")
    loaded = torch.load(output, weights_only=True, mmap=True)
    assert torch.equal(loaded["a"], new[:6])
    assert torch.equal(loaded["b"], new[3:].view(3, 3))
    assert loaded["a"].untyped_storage().data_ptr() == loaded["b"].untyped_storage().data_ptr()
    assert verify_checksums(open_container(str(output))) == ()


@pytest.mark.parametrize("descriptors", [True, False])
def test_archives_of_other_writers(tmp_path: Path, model: Path, descriptors: bool) -> None:
    """CRCs stand in the local header, or in a descriptor without signature's help."""
    other = tmp_path / "other.pth"
    with zipfile.ZipFile(model) as source, other.open("wb") as raw:

        class Unseekable:
            def write(self, data: bytes) -> int:
                return raw.write(data)

            def flush(self) -> None:
                raw.flush()

        with zipfile.ZipFile(Unseekable() if descriptors else raw, "w") as target:
            for name in source.namelist():
                with target.open(zipfile.ZipInfo(name), "w") as record:
                    record.write(source.read(name))
    output = rewritten(other, {"model/data/1": torch.zeros(5).numpy().tobytes()})
    with zipfile.ZipFile(output) as after:
        assert after.testzip() is None
    assert verify_checksums(open_container(str(output))) == ()


def test_what_does_not_fit_is_refused(model: Path) -> None:
    with pytest.raises(OperationError, match="no record"):
        rewritten(model, {"model/data/77": b""})
    with pytest.raises(OperationError, match="change its length"):
        rewritten(model, {"model/data/0": b"short"})
