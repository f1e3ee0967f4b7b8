"""What a killed run leaves of the papers beside an output, and what the next start makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckptools.errors import WriteError
from ckptools.workflows.operate import operate, undo
from tests.builders.training_files import Tiny

NAMES = ("a.reset.pth", "a.reset.undo", "a.reset.receipt.json")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save(Tiny().state_dict(), tmp_path / "a.pth")
    return tmp_path / "a.pth"


def killed(source: Path, *, named: bool, new: int) -> None:
    """Leave what a second run with ``--force`` leaves when it is killed.

    ``named``: the new output had its name; ``new``: so many of the new papers had theirs.
    """
    folder = source.parent
    old = first(source)
    operate("reset", source, module="head", seed=1, force=True)
    if not named:
        (folder / NAMES[0]).write_bytes(old[NAMES[0]])
    for index, name in enumerate(NAMES[1:]):
        (folder / f".{name}.123.before").write_bytes(old[name])
        if index >= new:
            (folder / name).unlink()


def first(source: Path) -> dict[str, bytes]:
    operate("reset", source, module="head", seed=0)
    return {name: (source.parent / name).read_bytes() for name in NAMES}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


#: the output gets its name last
STATES = pytest.mark.parametrize(("named", "new"), [(False, 0), (False, 1), (False, 2), (True, 2)])


@STATES
@pytest.mark.parametrize("given", NAMES)
def test_the_way_back_is_that_of_the_output(
    given: str, named: bool, new: int, source: Path
) -> None:
    killed(source, named=named, new=new)
    folder = source.parent
    undo(folder / given, folder / "back.pth")
    assert (folder / "back.pth").read_bytes() == source.read_bytes()
    assert hidden(folder) == []


@STATES
def test_the_next_run_leaves_nothing_behind(named: bool, new: int, source: Path) -> None:
    killed(source, named=named, new=new)
    operate("reset", source, module="head", seed=2, force=True)
    assert hidden(source.parent) == []
    undo(source.parent / NAMES[0], source.parent / "back.pth")
    assert (source.parent / "back.pth").read_bytes() == source.read_bytes()


def test_what_belongs_to_nothing_is_named(source: Path) -> None:
    killed(source, named=False, new=2)
    (source.parent / NAMES[0]).unlink()
    with pytest.raises(WriteError, match=r"\.a\.reset\.undo\.123\.before: .*set aside"):
        operate("reset", source, module="head")
    assert len(hidden(source.parent)) == 2


def test_a_dry_run_says_that_the_output_exists(source: Path) -> None:
    operate("reset", source, module="head")
    for force in (False, True):
        plan = operate("reset", source, module="head", dry_run=True, force=force)
        assert any("takes --force" in note for note in plan.notes) is not force
