from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ckptools.errors import CorruptFile, OpenError
from ckptools.sources import open_source
from ckptools.types.source import Source

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "file.bin"
    target.write_bytes(CONTENT)
    return target


def test_reading_by_position(path: Path) -> None:
    with open_source(path) as source:
        assert isinstance(source, Source)
        assert (source.name, source.size) == (str(path), len(CONTENT))
        assert source.read_at(100, 10) == CONTENT[100:110]
        assert source.read_at(0, len(CONTENT)) == CONTENT  # long enough to count as streaming
        assert source.read_at(len(CONTENT), 0) == b""
        buffer = bytearray(300_000)
        source.readinto_at(7, memoryview(buffer))
        assert buffer == CONTENT[7:300_007]


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (0, -1), (len(CONTENT), 1), (1 << 62, 1)])
def test_ranges_outside_of_the_file(path: Path, offset: int, length: int) -> None:
    with open_source(path) as source, pytest.raises(CorruptFile, match="outside"):
        source.read_at(offset, length)


@pytest.mark.parametrize("length", [10, 400_000])
def test_a_file_that_shrinks_underneath(path: Path, length: int) -> None:
    with open_source(path) as source:
        os.truncate(path, 5)
        with pytest.raises(CorruptFile, match="when it was opened"):
            source.read_at(0, length)


def test_a_file_that_grows_or_is_rewritten_is_noticed(path: Path) -> None:
    with open_source(path) as source:
        assert not source.changed()
        with path.open("ab") as stream:
            stream.write(b"more")
        assert source.changed()
        assert source.size == len(CONTENT)


def test_a_file_that_is_replaced_keeps_its_old_content(path: Path, tmp_path: Path) -> None:
    with open_source(path) as source:
        (tmp_path / "new").write_bytes(b"other")
        (tmp_path / "new").replace(path)
        assert source.read_at(0, 4) == CONTENT[:4]


def test_identity_tells_files_apart(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(CONTENT)
    with open_source(path) as one, open_source(path) as same, open_source(other) as another:
        assert one.identity == same.identity != another.identity


def test_closing_twice(path: Path) -> None:
    source = open_source(path)
    source.close()
    source.close()


def test_many_threads_read_one_source(path: Path) -> None:
    wrong: list[int] = []

    def read(seed: int) -> None:
        for i in range(200):
            offset = (seed * 7919 + i * 104_729) % (len(CONTENT) - 100)
            if source.read_at(offset, 100) != CONTENT[offset : offset + 100]:
                wrong.append(offset)

    with open_source(path) as source:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for name in ("fifo", "loop", "nowhere", "missing", ".", "a\0b", "x" * 5000):
        with pytest.raises(OpenError):
            open_source(str(tmp_path / name))
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(OpenError, match="no regular file"):
            open_source(device)


def test_a_link_to_a_file_is_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with open_source(tmp_path / "link") as source:
        assert source.size == len(CONTENT)


def test_no_descriptor_is_left_open(path: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        open_source(path).read_at(0, 1)
        with pytest.raises(OpenError):
            open_source(tmp_path)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
