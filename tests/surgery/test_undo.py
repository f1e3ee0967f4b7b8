"""Undo gives the source back bit for bit, or changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.errors import CorruptFile, OperationError
from ckptools.surgery import identity, undo
from ckptools.surgery.atomic import Target
from ckptools.surgery.output import Output, Written
from ckptools.surgery.segments import Copy, Segment, fresh, moved, write


def operate(folder: Path, source: bytes, parts: list[Segment]) -> None:
    (folder / "source").write_bytes(source)
    with (folder / "source").open("rb") as old, (folder / "output").open("wb") as new:
        output = Output(new, old.fileno())
        write(parts, output)
        output.finish()
    assert moved(parts) == tuple(output.moved)  # what is told before the writing is what comes
    known = {}
    for name in ("source", "output"):
        with (folder / name).open("rb") as file:
            known[name] = identity.of(file.fileno())
    written = Written(known["source"], known["output"], tuple(output.moved))
    ends = [{"path": str(folder / name), "sha256": one.digest} for name, one in known.items()]
    target, source_path = Target(folder / "x.undo"), folder / "source"
    with undo.begun(target, source_path, {"": written.moved}) as identify:
        identify(ends[0], ends[1], {"": written})


@st.composite
def operations(draw: st.DrawFn) -> tuple[bytes, list[Segment]]:
    source = draw(st.binary(max_size=100))
    parts: list[Segment] = []
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()) and source:
            start = draw(st.integers(0, len(source) - 1))
            parts.append(Copy(start, draw(st.integers(0, len(source) - start))))
        else:
            parts.append(fresh(draw(st.binary(max_size=20))))
    return source, parts


@settings(deadline=None)  # it waits for the disk
@given(operations())
def test_any_operation_can_be_undone(
    tmp_path_factory: pytest.TempPathFactory, operation: tuple[bytes, list[Segment]]
) -> None:
    folder = tmp_path_factory.mktemp("undo")
    source, parts = operation
    operate(folder, source, parts)
    undo.restore(folder / "x.undo", folder / "output", Target(folder / "back"))
    assert (folder / "back").read_bytes() == source


def test_the_patch_is_sparse(tmp_path: Path) -> None:
    source = bytes(range(256)) * 4000
    operate(tmp_path, source, [Copy(0, 500_000), fresh(b"xy"), Copy(500_002, 523_998)])
    assert (tmp_path / "x.undo").stat().st_size < 2000


def test_a_changed_output_is_refused(tmp_path: Path) -> None:
    operate(tmp_path, b"0123456789", [Copy(0, 5), fresh(b"abc")])
    with (tmp_path / "output").open("r+b") as file:
        file.write(b"?")
    with pytest.raises(OperationError, match="no longer the file"):
        undo.restore(tmp_path / "x.undo", tmp_path / "output", Target(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_something_else_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.undo").write_bytes(content)
    with pytest.raises(CorruptFile, match="not an undo file"):
        undo.read(tmp_path / "x.undo")
