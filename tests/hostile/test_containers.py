"""Containers that lie about themselves to cost time or memory."""

import json
import struct
import zipfile
import zlib

import pytest

from tests.builders.legacy_files import legacy, tensor_pickle
from tests.builders.safetensors_files import safetensors
from tests.builders.tar_files import archive, members, number
from tests.builders.torch_files import rebuilt, text
from tests.builders.zip_files import around, zipped
from tests.hostile.conftest import assert_bounded

TENSOR = b"\x80\x02}" + text("w") + rebuilt() + b"s."


def deflated(pickle, size):
    """Return a torch zip whose storage inflates to ``size`` zeros."""
    return zipped(
        {"data.pkl": pickle, "version": b"3\n", "data/0": bytes(size)}, zipfile.ZIP_DEFLATED
    )


def many_entries(count):
    return zipped({"data.pkl": TENSOR, **{f"data/{index}": b"" for index in range(count)}})


def overlapping(count):
    """Return a zip of whose directory ``count`` entries point to one record."""
    data = zipped({"data.pkl": TENSOR, "data/0": bytes(1 << 20)})
    end = data.rindex(b"PK\x05\x06")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    second = data.index(b"PK\x01\x02", start + 4)
    entry = data[second:end]
    copies = b"".join(
        entry.replace(b"archive/data/0", b"archive/d%05d" % index) for index in range(count)
    )
    directory = data[start:end] + copies
    counts = struct.pack("<HH", count + 2, count + 2)
    sizes = struct.pack("<II", len(directory), start)
    return data[:start] + directory + b"PK\x05\x06" + bytes(4) + counts + sizes + bytes(2)


def large_claim():
    """Return a zip whose pickle claims to have a tebibyte."""
    data = zipped({"data.pkl": TENSOR, "data/0": bytes(16)})
    size = struct.pack("<I", len(TENSOR))
    return data.replace(size + size, b"\xf0\xff\xff\xff" * 2)


def views(count):
    """Return a small file of many tensors that each view nearly the whole of one storage."""
    elements = 1 << 20
    body = b"".join(
        text(f"w{index}") + rebuilt(numel=elements, size=(elements - index,), offset=index)
        for index in range(count)
    )
    return around(b"\x80\x02}(" + body + b"u.", _0=bytes(4 * elements))


def repeats(count):
    """Return a tiny file of tensors that repeat one number about 2 ** 24 times each."""
    body = b"".join(
        text(f"w{index}") + rebuilt(size=((1 << 24) - index,), stride=(0,))
        for index in range(count)
    )
    return around(b"\x80\x02}(" + body + b"u.", _0=bytes(16))


def small_tensors(count):
    body = b"".join(text(f"layers.{index}.w") + rebuilt() for index in range(count))
    return around(b"\x80\x02}(" + body + b"u.", _0=bytes(16))


def plain_entries(count):
    body = b"".join(b"J" + struct.pack("<i", index) + b"N" for index in range(count))
    return around(b"\x80\x02}(" + body + b"u.")


def header(count, shape=()):
    entry = {"dtype": "U8", "shape": list(shape) or [0], "data_offsets": [0, 0]}
    return safetensors({f"w{index}": entry for index in range(count)}, b"")


def tar_of(count):
    return archive([*members(), *((f"x{index}", b"") for index in range(count))])


def tar_counts():
    """Return a tar that claims a million storages of eight bytes of nothing."""
    item = b"\x80\x02(" + number(1) + b"Nctorch\nFloatStorage\nt." + bytes(8)
    return archive([("storages", b"\x80\x02J\x40\x42\x0f\x00." + item * 20_000), *members()[1:]])


def legacy_keys(count):
    return legacy(tensor_pickle("a", 4), [f"k{index}" for index in range(count)])


COSTLY = {
    "30,000 records": lambda: many_entries(30_000),
    "5,000 names of one record": lambda: overlapping(5_000),
    "a mebibyte that inflates to a gibibyte": lambda: deflated(TENSOR, 1 << 30),
    "a pickle that inflates to 100 MiB": lambda: deflated(
        b"\x80\x02" + b"N0" * (50 << 20) + b"N.", 16
    ),
    "a pickle that claims 4 GiB": large_claim,
    "views of one storage": lambda: views(2_000),
    "one number, again and again": lambda: repeats(2_000),
    "10,000 tensors": lambda: small_tensors(10_000),
    "100,000 entries": lambda: plain_entries(100_000),
    "a header of 20,000 tensors": lambda: header(20_000),
    "a header of 50,000 dimensions": lambda: header(1, [1] * 50_000),
    "3,000 members": lambda: tar_of(3_000),
    "20,000 storages": tar_counts,
    "200,000 storage keys": lambda: legacy_keys(200_000),
    "9,000 shards": lambda: json.dumps(
        {"weight_map": {f"w{index}": f"s{index}.bin" for index in range(9_000)}}
    ).encode(),
    "an index in brackets": lambda: b'{"weight_map": ' + b"[" * 10_000_000,
    "zlib in place of a payload": lambda: zlib.compress(bytes(1 << 28)),
}


@pytest.fixture(scope="module")
def endings(examined_alone):
    return examined_alone(COSTLY)


@pytest.mark.parametrize("name", COSTLY)
def test_time_and_memory_are_bounded(name, endings):
    assert_bounded(name, endings)


@pytest.mark.parametrize("name", ["views of one storage", "one number, again and again"])
def test_views_beyond_all_measure_are_told(name, endings):
    assert "overlapping-views" in endings[name]["faults"]
