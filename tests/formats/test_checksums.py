from __future__ import annotations

import dataclasses
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.formats import open_container, verify_checksums
from ckptools.formats.checksums import _PERIOD, _power, _times, locate_flipped_bit
from ckptools.types.container import Container
from tests.builders import torch_files as files


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    value = {"w": torch.arange(100_000.0), "v": torch.ones(7), "e": torch.empty(0)}
    return files.save(value, tmp_path / "archive.pth")


def test_a_sound_file_has_no_faults(archive: Path) -> None:
    assert verify_checksums(open_container(str(archive))) == ()


@pytest.mark.parametrize("bit", range(8))
def test_one_flipped_bit_is_located(archive: Path, bit: int) -> None:
    clean = {r.storage.name: r.storage for r in open_container(str(archive)).records}
    storage = clean["data/0"]
    byte = 12_345 * (bit + 1) % storage.nbytes
    files.flip_bit(archive, storage.start + byte, bit)
    (fault,) = verify_checksums(open_container(str(archive)))
    assert fault.kind == "crc-mismatch"
    assert fault.where == fault.evidence["record"] == "archive/data/0"
    assert (fault.evidence["byte"], fault.evidence["bit"]) == (byte, bit)
    assert fault.evidence["file_byte"] == storage.start + byte
    assert 0 < fault.evidence["chance"] < 1e-3


def test_flipping_the_bit_back_heals_the_file(archive: Path) -> None:
    before = archive.read_bytes()
    files.flip_bit(archive, len(before) // 2, 3)
    (fault,) = verify_checksums(open_container(str(archive)))
    files.flip_bit(archive, fault.evidence["file_byte"], fault.evidence["bit"])
    assert archive.read_bytes() == before


def test_more_damage_than_a_bit_is_not_located(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4] = bytes(255 - byte for byte in data[middle : middle + 4])
    archive.write_bytes(data)
    (fault,) = verify_checksums(open_container(str(archive)))
    assert fault.kind == "crc-mismatch"
    assert "byte" not in fault.evidence


def test_a_damaged_checksum_is_told_from_damaged_data(archive: Path) -> None:
    central, _ = files.central_entries(archive)["archive/data/1"]
    files.flip_bit(archive, central + 16, 5)
    (fault,) = verify_checksums(open_container(str(archive)))
    assert "checksum itself" in fault.message
    assert "byte" not in fault.evidence


def test_several_damaged_records_are_all_told(archive: Path) -> None:
    for record in open_container(str(archive)).records:
        if record.storage.name in ("data/0", "data/1"):
            files.flip_bit(archive, record.storage.start + 2, 1)
    faults = verify_checksums(open_container(str(archive)))
    assert [fault.where for fault in faults] == ["archive/data/0", "archive/data/1"]
    assert {fault.evidence["byte"] for fault in faults} == {2}


def test_deflated_records_are_checked_too(archive: Path, tmp_path: Path) -> None:
    path = files.write_records(tmp_path / "d.pth", files.records(archive), zipfile.ZIP_DEFLATED)
    assert verify_checksums(open_container(str(path))) == ()
    (storage,) = (
        r.storage for r in open_container(str(path)).records if r.storage.name == "data/0"
    )
    files.flip_bit(path, storage.start + 1000, 2)
    (fault,) = verify_checksums(open_container(str(path)))
    assert fault.where == "archive/data/0"


def test_progress_ends_at_the_total(archive: Path) -> None:
    seen: list[tuple[int, int]] = []
    verify_checksums(open_container(str(archive)), lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 400_000
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_parts_of_a_folder_are_named(archive: Path) -> None:
    part = open_container(str(archive))
    storage = next(r.storage for r in part.records if r.storage.name == "data/0")
    files.flip_bit(archive, storage.start, 0)
    whole = Container("folder", "folder", 0, None, parts={"shard.pth": part})
    (fault,) = verify_checksums(whole)
    assert fault.where == "shard.pth: archive/data/0"


# -- the arithmetic --------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(
    data=st.binary(min_size=1, max_size=300), position=st.integers(0, 10**9), bit=st.integers(0, 7)
)
def test_the_place_follows_from_the_difference(data: bytes, position: int, bit: int) -> None:
    byte = position % len(data)
    flipped = bytearray(data)
    flipped[byte] ^= 1 << bit
    difference = zlib.crc32(data) ^ zlib.crc32(flipped)
    assert locate_flipped_bit(difference, len(data)) == [(byte, bit)]


def test_a_place_in_a_large_record() -> None:
    data = np.zeros(40_000_000, np.uint8)
    clean = zlib.crc32(data)
    for byte, bit in ((0, 7), (1, 0), (39_999_999, 3), (23_456_789, 5)):
        data[byte] ^= 1 << bit
        assert locate_flipped_bit(clean ^ zlib.crc32(data), data.size) == [(byte, bit)]
        data[byte] ^= 1 << bit


def test_above_half_a_gigabyte_there_are_several_places() -> None:
    length = _PERIOD // 8 + 1000
    difference = _power(32 + 7)  # the lowest bit of the last byte
    places = locate_flipped_bit(difference, length)
    assert places[0] == (length - 1, 0)
    assert len(places) == 2


def test_no_difference_has_no_place() -> None:
    assert locate_flipped_bit(0, 100) == []


def test_the_powers_of_x_repeat_after_the_period() -> None:
    assert _power(_PERIOD) == _power(0)
    for factor in (3, 5, 17, 257, 65537):  # the primes of the period: x generates the field
        assert _power(_PERIOD // factor) != _power(0)
    assert _times(_power(12_345), _power(54_321)) == _power(66_666)


def test_overlapping_records_are_read_once(archive: Path) -> None:
    container = open_container(str(archive))
    seen: list[int] = []
    repeated = dataclasses.replace(container, records=container.records * 50)
    verify_checksums(repeated, lambda done, total: seen.append(total))
    assert seen[-1] < archive.stat().st_size
