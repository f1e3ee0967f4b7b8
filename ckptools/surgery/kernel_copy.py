"""Ranges copied from one file to another, through the kernel where it can.

``copy_file_range`` shares blocks on some file systems and never passes the bytes through this
process; ``sendfile`` does the latter on more kernels; a buffer works everywhere.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from typing import Any

from ckptools.errors import CorruptFile

_BUFFER = 1 << 20
_NOT_HERE = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}


def copy_range(source: int, target: int, count: int, start: int, position: int) -> None:
    """Copy ``count`` bytes of ``source`` from ``start`` to ``position`` of ``target``.

    Parameters
    ----------
    source, target: descriptors; the position of ``target`` is undefined afterwards.

    Raises
    ------
    CorruptFile: the source ends before.
    """
    for copy in (_copy_file_range, _sendfile, _buffered):
        while count:
            done = copy(source, target, count, start, position)
            if done is None:
                break
            if done == 0:
                raise CorruptFile("the source became shorter while it was copied")
            start, position, count = start + done, position + done, count - done


def _copy_file_range(source: int, target: int, count: int, start: int, position: int) -> int | None:
    """Return how many bytes the kernel copied, or None where it cannot."""
    try:
        return os.copy_file_range(source, target, count, start, position)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return None


def _sendfile(source: int, target: int, count: int, start: int, position: int) -> int | None:
    """Return how many bytes the kernel copied, or None where it cannot."""
    try:
        os.lseek(target, position, os.SEEK_SET)
        return os.sendfile(target, source, start, count)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return None


def _buffered(source: int, target: int, count: int, start: int, position: int) -> int | None:
    data = os.pread(source, min(count, _BUFFER), start)
    return os.pwrite(target, data, position)


def allocate(descriptor: int, size: int) -> None:
    """Set disk blocks aside for ``size`` bytes of an empty file, where the file system can.

    Its length stays; cutting it to what was written gives the rest back.  Blocks that are known
    before are cheaper to write, and a full disk is noticed before anything is.

    Raises OSError when there is no room.
    """
    call = _linux("fallocate")
    if call is None or not size:
        return
    keep_size = 1
    if call(descriptor, keep_size, ctypes.c_int64(0), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(code, os.strerror(code))


def begin_writeback(descriptor: int, start: int, length: int) -> None:
    """Let the disk begin with a range that was just written, where the platform knows how.

    The ``fsync`` at the end finds little left to do then.  The call waits while the disk's queue
    is full.  (``POSIX_FADV_DONTNEED`` begins it, too, but drops pages that are to be read back.)
    """
    call = _linux("sync_file_range")
    if call is not None:
        begin = 2
        call(descriptor, ctypes.c_int64(start), ctypes.c_int64(length), begin)


@functools.cache
def _linux(name: str) -> Any:
    """Return a call that only Linux has, None elsewhere."""
    try:
        return getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
