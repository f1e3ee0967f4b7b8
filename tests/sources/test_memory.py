from __future__ import annotations

import pytest

from ckptools.errors import CorruptFile
from ckptools.sources.memory import MemorySource
from ckptools.types.source import Source


def test_bytes_by_position() -> None:
    source = MemorySource("here", b"0123456789")
    assert isinstance(source, Source)
    assert (source.name, source.size) == ("here", 10)
    assert source.read_at(3, 4) == b"3456"
    buffer = bytearray(2)
    source.readinto_at(8, memoryview(buffer))
    assert buffer == b"89"
    source.close()


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (5, 6), (0, -1)])
def test_ranges_outside(offset: int, length: int) -> None:
    with pytest.raises(CorruptFile):
        MemorySource("here", b"0123456789").read_at(offset, length)


def test_identity_tells_contents_apart() -> None:
    data = b"abc"
    assert MemorySource("a", data).identity == MemorySource("a", data).identity
    assert MemorySource("a", data).identity != MemorySource("b", data).identity
