"""Folders: whatever call fails or is interrupted, the old folder or the way back to it is there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptools.errors import CkptoolsError
from ckptools.surgery import atomic
from ckptools.workflows.operate import operate, undo
from tests.builders.sharded_folders import sharded
from tests.surgery.test_shards import MODULE, resumes, sums

#: of how many calls one fails; by hand, CKPTOOLS_STRIDE=1 tries them all
STRIDE = int(os.environ.get("CKPTOOLS_STRIDE", "61"))
#: calls of the operating system through which a folder is written, named and cleaned up
CALLS = (
    "chmod", "copy_file_range", "fchmod", "fsync", "ftruncate", "link", "mkdir", "open", "rename",
    "replace", "rmdir", "statvfs", "unlink",
)  # fmt: skip
#: of a file
METHODS = ("write", "flush", "truncate", "seek")


class Trouble:
    """Counts all calls, and raises before or after the one of a given number."""

    def __init__(self, at: int, error: BaseException, *, after: bool) -> None:
        self.at, self.error, self.after, self.seen = at, error, after, 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            self.seen += 1
            here = self.seen == self.at
            if here and not self.after:
                raise self.error
            result = call(*args, **options)
            if here:
                if isinstance(result, int) and call is _OPEN:
                    os.close(result)
                raise self.error
            return result

        return called

    def file(self, opened: Any) -> Any:
        return _File(opened, self)


_OPEN = os.open


class _File:
    """An open file whose methods are counted."""

    def __init__(self, file: Any, trouble: Trouble) -> None:
        self.file = file
        for name in METHODS:
            setattr(self, name, trouble.around(getattr(file, name)))

    def __enter__(self) -> _File:
        self.file.__enter__()
        return self

    def __exit__(self, *details: Any) -> Any:
        return self.file.__exit__(*details)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@contextlib.contextmanager
def troubled(trouble: Trouble, *, exchange: bool) -> Iterator[None]:
    """Let every call that writes go through ``trouble``; without ``exchange`` by three renames."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, trouble.around(getattr(os, name)))
        patch.setattr(os, "fdopen", _opening(os.fdopen, trouble))
        patch.setattr(Path, "open", _opening(Path.open, trouble))
        if not exchange:
            patch.setattr(atomic, "_renameat2", lambda *_: False)
        yield


def _opening(usual: Callable[..., Any], trouble: Trouble) -> Callable[..., Any]:
    def opened(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = usual(path, mode, *args, **options)
        return trouble.file(file) if "x" in mode or "w" in mode else file

    return opened


def age(folder: Path) -> None:
    """Let what lies about be older than anything a running process has just made."""
    for path in folder.glob(".*"):
        os.utime(path, (0, 0))


def check(source: Path, before: dict[str, str], in_place: bool) -> None:
    """The old content is there or comes back; what is new is whole; the next run leaves no rest."""
    output = source if in_place else source.with_name("run.reset")
    there = {path.name for path in source.parent.iterdir()}
    if in_place and (not source.exists() or sums(source) != before):
        age(source.parent)
        undo(source.with_name("run.undo"), source, force=True)
    elif output.exists() and not in_place:
        resumes(output)
        undo(source.with_name("run.reset.receipt.json"), source.with_name("back"))
        assert sums(source.with_name("back")) == before
        shutil.rmtree(source.with_name("back"))
    else:  # nothing new: no paper speaks of it either
        assert {name for name in there if not name.startswith(".")} == {"run"}
    assert sums(source) == before
    if (rest := source.with_name(".run.before")).exists():  # is named before anything else is done
        with pytest.raises(CkptoolsError, match="an interrupted replacement left"):
            operate("reset", source, module=MODULE, in_place=in_place)
        assert sums(rest) == before
        shutil.rmtree(rest)
    age(source.parent)
    for path in source.parent.iterdir():
        if path.is_file() and not path.name.startswith("."):
            path.unlink()
    operate("reset", source, module=MODULE, in_place=in_place, force=not in_place)
    assert not [path.name for path in source.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("kind", "trainer"), [("safetensors", False), ("bin", True)])
@pytest.mark.parametrize(
    ("error", "after"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (KeyboardInterrupt(), False),
        (KeyboardInterrupt(), True),
    ],
    ids=["full disk", "Ctrl-C before", "Ctrl-C after"],
)
def test_no_call_loses_anything(
    error: BaseException,
    after: bool,
    kind: str,
    trainer: bool,
    in_place: bool,
    exchange: bool,
    tmp_path: Path,
) -> None:
    made = sharded(tmp_path / "made", kind, trainer=trainer)
    before = sums(made)
    for at in range(1, 2000, STRIDE):
        folder = tmp_path / str(at)
        folder.mkdir()
        source = Path(shutil.copytree(made, folder / "run"))
        trouble = Trouble(at, error, after=after)
        with (
            troubled(trouble, exchange=exchange),
            contextlib.suppress(CkptoolsError, OSError, KeyboardInterrupt),
        ):
            operate("reset", source, module=MODULE, in_place=in_place)
        if trouble.seen < at:
            return
        check(source, before, in_place)
        shutil.rmtree(folder)
    pytest.fail("never went through")


def test_a_name_taken_by_a_killed_process_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sharded(tmp_path / "run")
    before = sums(source)
    operate("reset", source, module=MODULE, in_place=True)
    changed = sums(source)
    source.rename(tmp_path / ".run.before")
    undo(tmp_path / "run.undo", tmp_path / "back")
    assert sums(tmp_path / "back") == before
    source.rename(tmp_path / ".run.before")
    monkeypatch.chdir(tmp_path)
    operate("reset", "run", module=MODULE)
    source.rename(tmp_path / ".run.before")
    operate("rescale", "run/model.safetensors.index.json", module=MODULE, factor=2.0)
    assert sums(source) == changed
    assert not (tmp_path / ".run.before").exists()
