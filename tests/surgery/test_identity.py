"""What identifies a file notices any change of any byte."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.errors import CorruptFile
from ckptools.surgery import identity
from ckptools.surgery.identity import Identity, Stated


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, list[Stated]]:
    """Bytes, and disjoint ranges of them with their checksums."""
    data = draw(st.binary(min_size=1, max_size=200))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return data, [Stated(a, b - a, zlib.crc32(data[a:b])) for a, b in pairs if a < b]


def known(path: Path, ranges: list[Stated]) -> Identity:
    with path.open("rb") as file:
        return identity.of(file.fileno(), ranges)


@settings(deadline=None)
@given(files(), st.data())
def test_a_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[bytes, list[Stated]],
    more: st.DataObject,
) -> None:
    data, ranges = made
    path = tmp_path_factory.mktemp("identity") / "file"
    path.write_bytes(data)
    noted = known(path, ranges)
    assert identity.fits(path, noted)
    inside = {at for one in ranges for at in range(one.start, one.start + one.length)}
    rest = bytes(byte for at, byte in enumerate(data) if at not in inside)
    assert noted.digest == hashlib.sha256(rest).hexdigest()
    at = more.draw(st.integers(0, len(data) - 1))
    bit = 1 << more.draw(st.integers(0, 7))
    path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
    assert not identity.fits(path, noted)
    path.write_bytes(data + b"x")
    assert not identity.fits(path, noted)
    path.unlink()
    assert not identity.fits(path, noted)


def test_what_a_receipt_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    whole = known(tmp_path / "a", [])
    assert whole.document() == {"sha256": hashlib.sha256(b"12345").hexdigest(), "size_bytes": 5}
    partly = known(tmp_path / "a", [Stated(1, 2, zlib.crc32(b"23"))])
    assert partly.document() == {
        "sha256": None,
        "size_bytes": 5,
        "outline_sha256": hashlib.sha256(b"145").hexdigest(),
        "crc32_records": 1,
    }


def test_a_file_that_gets_shorter_is_no_endless_wait(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    with (tmp_path / "a").open("rb") as file, pytest.raises(CorruptFile, match="shorter"):
        list(identity.read(file.fileno(), 0, 9))
