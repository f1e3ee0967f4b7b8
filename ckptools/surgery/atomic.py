"""New files and folders that are whole or absent: temporary one, verify, sync, rename.

Whatever happens in between (an exception, Ctrl-C, a full disk, a killed process), the target
keeps its old content, or stays absent.  A killed process leaves one ``.NAME.*.part`` behind; its
lock went with the process, so the next write to the same target knows and clears it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ckptools.errors import NoSpace, WouldOverwrite, WriteError

SUFFIX = ".part"
#: of what had a name until something new took it
BEFORE = ".before"
#: letters of a temporary file's name from its random part on
_RANDOM = 8 + len(SUFFIX)
#: a file this young may belong to a process whose lock is not seen here; seconds
SETTLED = 10.0
#: in the names of temporary files: where locks are seen by all who write
_KERNEL = Path("/proc/sys/kernel/random/boot_id")
_OURS = re.compile(rf"\..+\.[0-9a-f]{{8}}-[a-z0-9_]{{8}}{re.escape(SUFFIX)}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a new file goes.

    Attributes
    ----------
    path: as the user gave it; a symlink's target is replaced and the link kept.
    force: replace an existing file.
    """

    path: Path
    force: bool = False

    @property
    def real(self) -> Path:
        """The path with symlinks followed."""
        return Path(os.path.realpath(self.path))


def refuse_existing(target: Target, *, folder: bool = False) -> None:
    """Raise WouldOverwrite when the target exists and may not be replaced.

    Only regular files are ever replaced, and folders (with ``folder``) only by folders.
    """
    real = target.real
    if real.exists() and not (real.is_dir() if folder else real.is_file()):
        stands = "a folder" if real.is_dir() else "a file" if folder else "no regular file"
        raise WouldOverwrite(
            f"is {stands}; the new checkpoint is a {'folder' if folder else 'file'}",
            where=str(target.path),
            next="name another place with -o",
        )
    if not target.force and os.path.lexists(target.path):
        raise WouldOverwrite(
            "exists", where=str(target.path), next="pass --force to replace it, or -o another name"
        )


def _refuse_arrived(target: Target) -> None:
    """Raise WouldOverwrite when the target exists by now."""
    if not target.force and os.path.lexists(target.path):
        raise _arrived(target)


def _arrived(target: Target) -> WouldOverwrite:
    return WouldOverwrite(
        "appeared while the new one was written",
        where=str(target.path),
        next="pass --force to replace it, or -o another name",
    )


def require_space(folder: Path, nbytes: int) -> None:
    """Raise NoSpace when the folder's disk cannot hold ``nbytes`` more."""
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        raise _wrapped(error, folder) from error
    free = disk.f_bavail * disk.f_frsize
    if free < nbytes:
        raise NoSpace(
            f"needs {nbytes:,} bytes and the disk has {free:,} free",
            where=str(folder),
            next="free some space, or name another folder with -o",
        )


@contextlib.contextmanager
def new_file(
    target: Target,
    *,
    size: int = 0,
    like: Path | None = None,
    verify: Callable[[Path], None],
    alone: bool = False,
) -> Iterator[BinaryIO]:
    """Give a temporary file to write; on leaving, verify it and give it the target's name.

    Parameters
    ----------
    target: where it goes and whether it may replace something.
    size: expected length in bytes, checked against the free space first.
    like: a file whose permissions are copied.
    verify: reads the finished temporary file back; whatever it raises keeps the old state.
    alone: no other process that says so verifies and names in this folder at the same time.

    Raises
    ------
    WouldOverwrite, NoSpace, WriteError; the target is untouched then.
    """
    refuse_existing(target)
    real = target.real
    clear_leftovers(real)
    require_space(real.parent, size)
    descriptor, name = _temporary(real)
    temporary = Path(name)
    locked = os.dup(descriptor)  # the lock stands until the last of both is closed
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            _copy_mode(like if like is not None else real, file.fileno())
            os.fsync(file.fileno())
        with _alone(real.parent) if alone else contextlib.nullcontext():
            _refuse_arrived(target)
            verify(temporary)
            _give_name(temporary, real, target)
        _sync_folder(real.parent)
    except OSError as error:
        raise _wrapped(error, target.path) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        os.close(locked)


@contextlib.contextmanager
def new_folder(
    target: Target, *, size: int = 0, like: Path, verify: Callable[[Path], None]
) -> Iterator[Path]:
    """Give a temporary folder to fill; on leaving, verify it and give it the target's name.

    Parameters and errors are those of :func:`new_file`; whoever writes a file into the folder
    brings it to the disk.
    """
    refuse_existing(target, folder=True)
    real = target.real
    clear_leftovers(real)
    require_space(real.parent, size)
    with temporary_folder(real) as temporary:
        try:
            yield temporary
            temporary.chmod(like.stat().st_mode & 0o7777)
            _sync_folder(temporary)
            with _alone(real.parent):
                _refuse_arrived(target)
                verify(temporary)
                _give_folder_name(temporary, real, target)
            _sync_folder(real.parent)
        except OSError as error:
            raise _wrapped(error, target.path) from error


@contextlib.contextmanager
def temporary_folder(real: Path) -> Iterator[Path]:
    """Give a folder beside ``real`` that goes when it is left, or with the next start."""
    try:
        name = tempfile.mkdtemp(prefix=_mark(real), suffix=SUFFIX, dir=real.parent)
    except OSError as error:
        raise _wrapped(error, real.parent) from error
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, name, ignore_errors=True)
        descriptor = os.open(name, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        _lock(descriptor)
        yield Path(name)


def leftovers(real: Path) -> list[Path]:
    """Return the temporary files and folders beside a target, of killed and running processes.

    They are those of this target, and of others what only this module calls so.
    """
    own = f".{real.name}."
    return sorted(
        path
        for path in real.parent.glob(f".*{SUFFIX}")
        if (path.name.startswith(own) or _OURS.fullmatch(path.name))
        and (path.is_file() or path.is_dir())
    )


def clear_leftovers(real: Path) -> list[Path]:
    """Delete what killed processes left beside a target; return it.

    What some process still has locked is its own business, and so is what is young, unless it
    was locked under this very kernel.
    """
    cleared = []
    for path in leftovers(real):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                young = time.time() - os.fstat(descriptor).st_mtime < SETTLED
                if young and not _was_locked_here(path):
                    continue
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                cleared.append(path)
            finally:
                os.close(descriptor)
    return cleared


def _was_locked_here(path: Path) -> bool:
    """Return whether a temporary file got past its lock, which this kernel would still show.

    Other machines' locks are not seen on every file system; whoever has locked a file of this
    machine fills it, so an empty one may still be on its way to the lock.
    """
    filled = any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    return filled and bool(_kernel()) and path.name[:-_RANDOM].endswith(f".{_kernel()}")


def _mark(real: Path) -> str:
    """Return how the names of temporary files for ``real`` begin."""
    return f".{real.name}.{_kernel()}"


@functools.cache
def _kernel() -> str:
    """Return a word for the kernel that runs since its start, nothing where it has none."""
    try:
        return f"{_KERNEL.read_text()[:8]}-"
    except OSError:
        return ""


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process gives a name in ``folder``; nothing to wait for without locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def set_aside(path: Path) -> Iterator[Path]:
    """Give a file a hidden name for a while.

    Whoever takes it aside gives it back or deletes it.  What a killed process left aside is never
    deleted: it may be the only way back from a file that still has its name.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{BEFORE}")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor)
        path.replace(aside)
        yield aside
    finally:
        os.close(descriptor)


def give_back(path: Path) -> None:
    """Give a file its name again that a killed process had set aside, if the name is free."""
    for aside in stood_aside(path):
        if not os.path.lexists(path):
            aside.rename(path)


def stood_aside(path: Path) -> list[Path]:
    """Return what killed processes had set aside of a name."""
    found = sorted(path.parent.glob(f".{glob.escape(path.name)}.*{BEFORE}"))
    return [aside for aside in found if aside.is_file() and not _locked(aside)]


def _locked(path: Path) -> bool:
    """Return whether a process that still lives holds a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system
        return False
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # no locks on this file system: nothing is ever cleared
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _temporary(real: Path) -> tuple[int, str]:
    """Make a temporary file that is locked as long as this process lives."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=_mark(real), suffix=SUFFIX, dir=real.parent)
    except OSError as error:
        raise _wrapped(error, real.parent) from error
    _lock(descriptor)
    return descriptor, name


def _copy_mode(like: Path, descriptor: int) -> None:
    """Give the new file the permissions of ``like``, or the usual ones where there is no such."""
    try:
        mode = like.stat().st_mode & 0o7777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    os.fchmod(descriptor, mode)


def _give_name(temporary: Path, real: Path, target: Target) -> None:
    """Rename; without ``force`` through a hard link, which fails when the name is taken."""
    if target.force:
        temporary.replace(real)
        return
    try:
        os.link(temporary, real)
    except FileExistsError:
        raise _arrived(target) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        refuse_existing(target)  # no hard links here: the check is the best that is left
        temporary.replace(real)


def _give_folder_name(temporary: Path, real: Path, target: Target) -> None:
    """Rename a folder; with ``force`` the old one is put in its place, and goes with it."""
    if target.force and real.exists():
        _exchange(temporary, real)
        return
    try:
        temporary.rename(real)  # fails when there is a folder that holds anything
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise _arrived(target) from None


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change names, at once where the kernel can."""
    if _renameat2(one, other):
        return
    aside = _before(other)
    try:
        other.rename(aside)
        one.rename(other)
    finally:  # also where Ctrl-C came between two of them
        if not other.exists():
            aside.rename(other)
        elif aside.exists():
            aside.rename(one)


def _before(folder: Path) -> Path:
    """Return where a folder's old content is for a moment, while the new one takes its name."""
    return folder.with_name(f".{folder.name}{BEFORE}")


def bring_back(path: Path) -> None:
    """Give a folder its name again that a killed process had just taken from it.

    ``path`` is that of the folder or of a file in it; there is mostly nothing to do.

    Raises
    ------
    WriteError: another folder has the name by now.
    """
    whole = Path(os.path.abspath(path))
    for folder in (whole, whole.parent):
        if not folder.name or not (aside := _before(folder)).is_dir():
            continue
        if os.path.lexists(folder):
            raise WriteError(
                "is the old content that an interrupted replacement left",
                where=str(aside),
                next=f"move it back to {folder.name}, or delete it",
            )
        aside.rename(folder)


def _renameat2(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the platform cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2
    done: int = call(here, os.fsencode(one), here, os.fsencode(other), exchange)
    return done == 0


def _sync_folder(folder: Path) -> None:
    """Make a new name last, where the file system can.

    A failure is none of the operation's: a power cut may bring the old state back, which is whole.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _wrapped(error: OSError, where: Path) -> WriteError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("the disk is full", where=str(where), next="free some space and try again")
    return WriteError(
        f"cannot be written: {(error.strerror or str(error)).lower()}",
        where=str(where),
        next="name another place with -o",
    )
