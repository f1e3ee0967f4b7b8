"""Whole or absent, whatever happens; the old file survives every failure."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ckptools.errors import NoSpace, VerificationFailed, WouldOverwrite, WriteError
from ckptools.surgery import atomic
from ckptools.surgery.atomic import Target, clear_leftovers, give_back, leftovers, new_file


def accept(path: Path) -> None:
    assert path.exists()


def put(target: Target, content: bytes, **options: Any) -> None:
    with new_file(target, verify=options.pop("verify", accept), **options) as file:
        file.write(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_with_its_content_and_nothing_is_left(tmp_path: Path) -> None:
    put(Target(tmp_path / "a"), b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_an_existing_file_is_kept_without_force(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(WouldOverwrite, match="--force"):
        put(Target(tmp_path / "a"), b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    put(Target(tmp_path / "a", force=True), b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with (
        pytest.raises(WouldOverwrite, match="appeared"),
        new_file(Target(tmp_path / "a"), verify=accept),
    ):
        (tmp_path / "a").write_bytes(b"rival")
    assert (tmp_path / "a").read_bytes() == b"rival"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_state(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with (
        pytest.raises(type(error)),
        new_file(Target(tmp_path / "a", force=True), verify=accept) as file,
    ):
        file.write(b"half")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_failed_verification_leaves_the_old_state(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise VerificationFailed("differs", where=str(path))

    with pytest.raises(VerificationFailed):
        put(Target(tmp_path / "a"), b"new", verify=refuse)
    assert names(tmp_path) == []


def test_a_full_disk_is_noticed_before_and_during(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoSpace, match="free"):
        put(Target(tmp_path / "a"), b"", size=1 << 60)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match="full"):
        put(Target(tmp_path / "a"), b"new")
    assert names(tmp_path) == []


def test_a_missing_folder_is_a_clean_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="no such file"):
        put(Target(tmp_path / "nowhere" / "a"), b"new")


def test_permissions_follow_the_model_file(tmp_path: Path) -> None:
    like = tmp_path / "like"
    like.write_bytes(b"")
    like.chmod(0o640)
    put(Target(tmp_path / "a"), b"new", like=like)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    mask = os.umask(0o022)
    put(Target(tmp_path / "b"), b"new")
    os.umask(mask)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644


def test_a_symlink_stays_and_its_target_changes(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    put(Target(tmp_path / "link", force=True), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def no_links(*_: object) -> None:
        raise OSError(code, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    put(Target(tmp_path / "a"), b"new")
    assert names(tmp_path) == ["a"]
    with pytest.raises(WouldOverwrite):
        put(Target(tmp_path / "a"), b"newer")


def test_a_killed_writer_leaves_the_target_and_a_part_that_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    code = f"""
        import os, signal
        from pathlib import Path
        from ckptools.surgery.atomic import Target, new_file
        with new_file(Target(Path({str(tmp_path / "a")!r}), force=True), verify=print) as file:
            file.write(b"half"); file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.read_bytes() for path in leftovers(tmp_path / "a")] == [b"half"]
    put(Target(tmp_path / "a", force=True), b"next")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("content", [b"", b"half"])
def test_what_another_machine_may_be_writing_is_left_until_it_is_old(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content:  # a name from another kernel
        part = tmp_path / ".a.12345678-abcdefgh.part"
    else:  # of this one, between its making and its lock
        part = tmp_path / f"{atomic._mark(tmp_path / 'a')}abcdefgh.part"
    part.write_bytes(content)
    put(Target(tmp_path / "a"), b"next")
    assert part.exists()
    os.utime(part, (0, 0))
    put(Target(tmp_path / "a", force=True), b"last")
    assert names(tmp_path) == ["a"]


def test_a_part_is_locked_until_it_has_its_name(tmp_path: Path) -> None:
    def verify(path: Path) -> None:
        os.utime(path, (0, 0))
        assert clear_leftovers(tmp_path / "a") == []

    with new_file(Target(tmp_path / "a"), verify=verify) as file:
        file.write(b"whole")
    assert names(tmp_path) == ["a"]


def test_what_a_killed_process_set_aside_is_kept_and_given_back(tmp_path: Path) -> None:
    (tmp_path / "a.undo").write_bytes(b"way back")
    code = f"""
        import os, signal
        from pathlib import Path
        from ckptools.surgery.atomic import set_aside
        with set_aside(Path({str(tmp_path / "a.undo")!r})):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    (aside,) = tmp_path.iterdir()
    os.utime(aside, (0, 0))
    assert clear_leftovers(tmp_path / "a.undo") == []
    give_back(tmp_path / "a.undo")
    assert names(tmp_path) == ["a.undo"]
    assert (tmp_path / "a.undo").read_bytes() == b"way back"


def test_what_is_set_aside_does_not_replace_what_came_since(tmp_path: Path) -> None:
    (tmp_path / ".a.undo.123.before").write_bytes(b"old")
    (tmp_path / "a.undo").write_bytes(b"new")
    give_back(tmp_path / "a.undo")
    assert (tmp_path / "a.undo").read_bytes() == b"new"
    assert (tmp_path / ".a.undo.123.before").read_bytes() == b"old"


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    with new_file(Target(tmp_path / "a"), verify=accept) as file:
        file.write(b"first")
        file.flush()
        os.utime(leftovers(tmp_path / "a")[0], (0, 0))
        assert clear_leftovers(tmp_path / "a") == []
        assert len(leftovers(tmp_path / "a")) == 1
    assert (tmp_path / "a").read_bytes() == b"first"


def test_racing_writers_one_wins(tmp_path: Path) -> None:
    code = f"""
        import sys
        from pathlib import Path
        from ckptools.errors import WouldOverwrite
        from ckptools.surgery.atomic import Target, new_file
        try:
            with new_file(Target(Path({str(tmp_path / "a")!r})), verify=lambda path: None) as file:
                file.write(sys.argv[1].encode() * 1000)
        except WouldOverwrite:
            sys.exit(7)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    running = [subprocess.Popen([*command, str(i)]) for i in range(6)]
    codes = [process.wait() for process in running]
    assert sorted(codes) == [0, 7, 7, 7, 7, 7]
    winner = codes.index(0)
    assert (tmp_path / "a").read_bytes() == str(winner).encode() * 1000
    assert names(tmp_path) == ["a"]
