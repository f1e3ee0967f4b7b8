"""Failures at every call that writes: nothing is lost, and nothing half is left."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckptools.errors import CkptoolsError, NoSpace, WriteError
from ckptools.surgery import atomic
from ckptools.workflows.operate import operate, undo
from tests.builders.training_files import training_file

#: every call through which something reaches the disk
CALLS = ("fsync", "link", "fchmod", "copy_file_range", "preadv", "statvfs", "open")


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return training_file(tmp_path / "mine.pth")


class Failing:
    """Counts calls and fails the one of a given number."""

    def __init__(self, call: Callable[..., Any], at: int, code: int) -> None:
        self.call, self.at, self.code, self.seen = call, at, code, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.seen += 1
        if self.seen == self.at:
            raise OSError(self.code, os.strerror(self.code))
        return self.call(*args, **options)


class FailingFile:
    """One of several files; their write of a given number fails, everything else goes through."""

    def __init__(self, file: Any, failing: Failing) -> None:
        self.file, self.failing = file, failing

    def write(self, data: Any) -> Any:
        return self.failing(self.file, data)

    def __enter__(self) -> FailingFile:
        self.file.__enter__()
        return self

    def __exit__(self, *details: Any) -> Any:
        return self.file.__exit__(*details)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def check(source: Path, before: str) -> None:
    """The old content is there under its name, and nothing half lies beside it."""
    assert sha(source) == before
    assert [path.name for path in source.parent.iterdir()] == [source.name]


@pytest.mark.parametrize(("in_place", "verify"), [(False, None), (False, False), (True, None)])
@pytest.mark.parametrize("name", CALLS)
def test_a_failing_call_loses_nothing(
    name: str,
    in_place: bool,
    verify: bool | None,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = sha(source)
    for at in range(1, 2000, {"copy_file_range": 9, "preadv": 61}.get(name, 1)):
        failing = Failing(getattr(os, name), at, errno.EIO)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            try:
                attempt(source, in_place, verify)
                failed = False
            except (CkptoolsError, OSError):
                failed = True
        if failed:
            check(source, before)
        elif failing.seen < at:
            return
        else:  # there is another way without that call
            take_back(source, in_place)
    pytest.fail("never went through")


def take_back(source: Path, in_place: bool) -> None:
    name = "mine" if in_place else "new"
    undo(source.with_name(f"{name}.receipt.json"), source, force=True)
    for path in source.parent.iterdir():
        if path != source:
            path.unlink()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_failing_write_loses_nothing(
    in_place: bool, code: int, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, kinds = sha(source), set[type]()
    for at in range(1, 200, 3):
        failing = Failing(lambda file, data: file.write(data), at, code)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdopen", wrapping(os.fdopen, failing))
            try:
                attempt(source, in_place)
            except WriteError as error:
                kinds.add(type(error))
            else:
                assert kinds == {NoSpace if code == errno.ENOSPC else WriteError}
                return
        check(source, before)
    pytest.fail("never went through")


def wrapping(usual: Callable[..., Any], failing: Failing) -> Callable[..., Any]:
    return lambda *args, **options: FailingFile(usual(*args, **options), failing)


def attempt(source: Path, in_place: bool, verify: bool | None = None) -> None:
    target = None if in_place else source.with_name("new.pth")
    operate("reset", source, target, module="layers.1", in_place=in_place, verify=verify)


KILLED = """
    import os, signal
    from ckptools.workflows.operate import operate
    left = {at}
    def killing(call):
        def replaced(*args, **options):
            global left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        return replaced
    for name in ("fsync", "link", "replace", "unlink", "fchmod"):
        setattr(os, name, killing(getattr(os, name)))
    operate("reset", {source!r}, {target!r}, module="layers.1", in_place={in_place})
"""


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("at", [1, 3, 4, 5, 8])
def test_a_killed_process_loses_nothing(at: int, in_place: bool, source: Path) -> None:
    before = sha(source)
    target = None if in_place else str(source.with_name("new.pth"))
    code = KILLED.format(at=at, source=str(source), target=target, in_place=in_place)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    if sha(source) != before:  # it came as far as the new name: the way back is there
        assert in_place
        undo(source.with_name("mine.undo"), source, force=True)
    assert sha(source) == before
    for part in source.parent.glob(".*.part"):
        os.utime(part, (0, 0))
    operate("reset", source, target, module="layers.1", in_place=in_place, force=not in_place)
    left = {path.name for path in source.parent.iterdir() if path.name.startswith(".")}
    assert not left


def test_a_source_that_changes_meanwhile_is_noticed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = os.fsync

    def meanwhile(descriptor: int) -> None:
        usual(descriptor)
        os.utime(source, (1, 1))

    monkeypatch.setattr(os, "fsync", meanwhile)
    with pytest.raises(CkptoolsError, match="changed while"):
        operate("reset", source, source.with_name("new.pth"), module="layers.1")
    assert [path.name for path in source.parent.iterdir()] == ["mine.pth"]


def test_a_read_only_folder_is_a_clean_error(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # root may write anywhere: the same errno from mkstemp

        def refused(**options: Any) -> Any:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(atomic.tempfile, "mkstemp", refused)
    else:
        source.parent.chmod(0o500)
    with pytest.raises(CkptoolsError, match="permission denied"):
        operate("reset", source, source.with_name("new.pth"), module="layers.1")
    source.parent.chmod(0o700)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("at", [1, 4, 9])
def test_ctrl_c_leaves_nothing(
    at: int, in_place: bool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, left = sha(source), [at]

    def interrupted(*args: Any) -> int:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return usual(*args)

    usual = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attempt(source, in_place)
    check(source, before)


def test_an_old_undo_file_outlives_a_run_that_fails(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(source, in_place=False)
    before = {path.name: sha(path) for path in source.parent.iterdir()}

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(atomic, "_give_name", refused)
    with pytest.raises(WriteError):
        operate("reset", source, source.with_name("new.pth"), module="layers.0", force=True)
    monkeypatch.undo()
    assert {path.name: sha(path) for path in source.parent.iterdir()} == before


RACING = """
    from ckptools.workflows.operate import operate
    operate("reset", {source!r}, {target!r}, module="layers.1", seed={seed})
"""


def test_of_racing_runs_one_wins_and_its_way_back_is_whole(source: Path) -> None:
    before, target = sha(source), source.with_name("new.pth")
    codes = [
        textwrap.dedent(RACING.format(source=str(source), target=str(target), seed=seed))
        for seed in range(4)
    ]
    racers = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for code in codes
    ]
    errors = [racer.communicate()[1] for racer in racers]
    assert sorted(bool(racer.returncode) for racer in racers) == [False, True, True, True]
    assert sum(b"WouldOverwrite" in error for error in errors) == 3
    receipt = undo(target.with_suffix(".receipt.json"), source.with_name("back.pth"))
    assert receipt.source["sha256"] == sha(target)
    assert sha(source.with_name("back.pth")) == before
    assert not [path.name for path in source.parent.iterdir() if path.name.startswith(".")]
