"""A new file while it is written: what is read behind the writing, and room set aside for it."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ckptools.errors import VerificationFailed
from ckptools.surgery import identity, kernel_copy
from ckptools.surgery.identity import Identity, Stated
from ckptools.surgery.output import Output, followed

SOURCE = bytes(range(256)) * 40
#: (start, length) of two records of the source; the second one is not copied whole below
RECORDS = ((100, 3000), (4000, 5000))


def written(folder: Path, *, whole: bool, lie: int = 0) -> Identity:
    """Write a record and what lies around it, part of another one, and fresh bytes.

    ``lie`` is added to the first record's checksum.
    """
    (folder / "source").write_bytes(SOURCE)
    with (
        (folder / "source").open("rb") as old,
        (folder / "new").open("w+b") as new,
        ThreadPoolExecutor(2) as pool,
    ):
        output = Output(new, old.fileno())
        output.known = [
            (start, length, zlib.crc32(SOURCE[start : start + length]) + lie * (index == 0), "data")
            for index, (start, length) in enumerate(RECORDS)
        ]
        with followed(output, pool, whole=whole) as reading:
            output.write(b"fresh")
            output.copy(50, 4950)
            output.write(b"more")
        found = reading.result()
        carried = list(output.carried(output.moved))
        assert carried == [Stated(100, 3000, zlib.crc32(SOURCE[100:3100]) + lie)]
        assert identity.of(new.fileno(), found.ranges) == found
    return found


def test_every_byte_is_read_and_hashed(tmp_path: Path) -> None:
    found = written(tmp_path, whole=True)
    expected = b"fresh" + SOURCE[50:5000] + b"more"
    assert (tmp_path / "new").read_bytes() == expected
    assert found == Identity(len(expected), hashlib.sha256(expected).hexdigest())


def test_a_copied_record_goes_by_its_checksum(tmp_path: Path) -> None:
    found = written(tmp_path, whole=False)
    assert found.ranges == (Stated(55, 3000, zlib.crc32(SOURCE[100:3100])),)
    rest = b"fresh" + SOURCE[50:100] + SOURCE[3100:5000] + b"more"
    assert found.digest == hashlib.sha256(rest).hexdigest()


def test_only_reading_all_notices_a_record_that_is_not_what_it_states(tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="data is not as it must be"):
        written(tmp_path, whole=True, lie=1)
    written(tmp_path, whole=False, lie=1)


def reserved(path: Path, size: int) -> None:
    with path.open("w+b") as file:
        output = Output(file, file.fileno())
        output.reserve(size)
        output.write(b"abc")
        output.finish()


def test_what_was_reserved_for_more_is_given_back(tmp_path: Path) -> None:
    reserved(tmp_path / "new", 64 << 20)
    assert (tmp_path / "new").read_bytes() == b"abc"
    assert (tmp_path / "new").stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP, None])
def test_a_full_disk_is_noticed_before_a_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    def fallocate(*_: object) -> int:
        ctypes.set_errno(code or 0)
        return -1

    monkeypatch.setattr(kernel_copy, "_linux", lambda name: fallocate if code else None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(OSError, match=r"No space|quota"):
            reserved(tmp_path / "new", 10)
        assert (tmp_path / "new").read_bytes() == b""
    else:
        reserved(tmp_path / "new", 10)
        assert (tmp_path / "new").read_bytes() == b"abc"
