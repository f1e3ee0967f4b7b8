import pickle
import struct

import numpy as np
import pytest
import torch

from ckptools.errors import CkptoolsError, CorruptFile, UnknownFormat
from ckptools.formats import open_container
from ckptools.sources.arrays import read_array
from ckptools.types.tree import class_name, entries, unwrap


def opened(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    return open_container(str(path))


def graded(container):
    return {use.name: use.grade for use in container.globals}


class Payload:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_are_listed(tmp_path, protocol):
    value = {"epoch": 3, "lr": [0.1, 0.2], "w": np.arange(4, dtype=np.float32)}
    container = opened(tmp_path, pickle.dumps(value, protocol))
    found = dict(entries(container.root))
    assert container.format == "bare-pickle"
    assert container.faults == ()
    assert found["epoch"] == 3
    assert read_array(unwrap(found["w"])).tolist() == [0, 1, 2, 3]
    assert set(graded(container).values()) <= {"known"}


@pytest.mark.parametrize("protocol", range(6))
def test_calls_are_named_and_not_made(tmp_path, protocol, capsys):
    container = opened(tmp_path, pickle.dumps({"x": Payload()}, protocol))
    assert "dangerous" in graded(container).values()
    assert capsys.readouterr().out == ""


def test_large_pickles_are_read_whole(tmp_path):
    value = [{"name": f"item {i}", "value": float(i)} for i in range(20_000)]
    container = opened(tmp_path, pickle.dumps(value, 4))
    assert container.size_bytes > 200_000
    assert len(container.root) == 20_000


def test_what_follows_the_first_pickle_is_read_for_its_names(tmp_path):
    data = pickle.dumps({"a": 1}) + pickle.dumps([2]) + pickle.dumps(Payload())
    container = opened(tmp_path, data)
    assert [fault.kind for fault in container.faults] == ["trailing-bytes"]
    assert graded(container) == {"builtins.print": "dangerous"}
    assert entries(container.root) == [("a", 1)]


def test_a_pickle_that_breaks_after_its_payload_is_refused_by_name(tmp_path):
    data = pickle.dumps(Payload(), 2)[:-1] + b"\xff"
    with pytest.raises(CorruptFile, match="print"):
        opened(tmp_path, data)


@pytest.mark.parametrize(
    "data",
    [
        b"N.",
        b"I1\n.",
        b"hello world",
        b"name,hash\nnumpy,123\n",
        b"numpy/core.py,sha256=abc,12\r\nnumpy/lib.py,sha256=def,13\r\n",
        b"chgnet/__init__.py,sha256=abc,12\r\nchgnet/x.py,sha256=def,13\r\n",
        bytes(1000),
        b"\xff" * 1000,
        b"{}",
        b"",
    ],
)
def test_texts_and_other_bytes_are_no_pickles(tmp_path, data):
    with pytest.raises(UnknownFormat):
        opened(tmp_path, data)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x1f\x8b\x08" + bytes(60), "gzip"),
        (b"\x93NUMPY\x01\x00" + bytes(60), "numpy"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(60), "7z"),
    ],
)
def test_wrapped_files_are_refused_by_name(tmp_path, data, word):
    with pytest.raises(UnknownFormat) as caught:
        opened(tmp_path, data)
    assert word in str(caught.value)


def test_numpy_archives_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(UnknownFormat, match="archive of numpy arrays"):
        open_container(str(tmp_path / "x.npz"))


def place(path, offset, length):
    """Return the opcodes of one entry of a distributed checkpoint's table."""
    text = b"X" + struct.pack("<I", len(path)) + path.encode()
    state = b"}(X\x0d\x00\x00\x00relative_path" + text + b"X\x06\x00\x00\x00offset"
    state += b"\x8a\x09" + offset.to_bytes(9, "little", signed=True) + b"X\x06\x00\x00\x00length"
    state += b"\x8a\x09" + length.to_bytes(9, "little", signed=True) + b"u"
    return b"ctorch.distributed.checkpoint.filesystem\n_StorageInfo\n)\x81" + state + b"b"


def table(path="__0_0.distcp", offset=0, length=64, elements=4):
    module = b"ctorch.distributed.checkpoint.metadata\n"
    size = b"ctorch\nSize\n\x8a\x09" + elements.to_bytes(9, "little", signed=True) + b"\x85\x85R"
    tensor = module + b"TensorStorageMetadata\n)\x81}X\x04\x00\x00\x00size" + size + b"sb"
    state = b"}(X\x01\x00\x00\x00t" + tensor + b"X\x01\x00\x00\x00p" + place(path, offset, length)
    return b"\x80\x02" + module + b"Metadata\n)\x81" + state + b"ub."


class TestTablesOfDistributedCheckpoints:
    def kinds(self, tmp_path, **changes):
        (tmp_path / "__0_0.distcp").write_bytes(bytes(64))
        (tmp_path / ".metadata").write_bytes(table(**changes))
        container = open_container(str(tmp_path / ".metadata"))
        assert class_name(container.root).endswith("Metadata")
        assert "not supported yet" in container.not_judged[0]
        return [fault.kind for fault in container.faults]

    def test_a_right_one(self, tmp_path):
        assert self.kinds(tmp_path) == []

    @pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/b", "..", "", "a\\b"])
    def test_a_place_outside(self, tmp_path, path):
        assert "path-traversal" in self.kinds(tmp_path, path=path)

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"offset": 60}, "record-outside"),
            ({"length": 1 << 50}, "record-outside"),
            ({"length": -1}, "malformed-object"),
            ({"path": "missing"}, "missing-shard"),
            ({"elements": 1 << 60}, "tensor-out-of-bounds"),
            ({"elements": -5}, "malformed-object"),
        ],
    )
    def test_contradictions(self, tmp_path, changes, kind):
        assert kind in self.kinds(tmp_path, **changes)


class TestPolyglots:
    def kinds(self, tmp_path, data):
        container = opened(tmp_path, data)
        named = {fault.evidence.get("other") for fault in container.faults}
        assert "polyglot" in [fault.kind for fault in container.faults]
        return container.format, named - {None}

    def zip_file(self, tmp_path):
        torch.save({"w": torch.ones(2)}, tmp_path / "z.pth")
        return (tmp_path / "z.pth").read_bytes()

    def test_a_pickle_with_an_archive_behind_it(self, tmp_path):
        data = pickle.dumps(Payload(), 2) + self.zip_file(tmp_path)
        assert self.kinds(tmp_path, data) == ("bare-pickle", {"torch-zip"})

    def test_safetensors_with_an_archive_behind_it(self, tmp_path):
        header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        data = len(header).to_bytes(8, "little") + header + bytes(4) + self.zip_file(tmp_path)
        assert self.kinds(tmp_path, data) == ("safetensors", {"torch-zip"})

    def test_safetensors_that_is_a_pickle_too(self, tmp_path):
        # read as a pickle, the length is an opcode that skips to the inside of the metadata,
        # and the two bytes of U+0093 are a memo index and STACK_GLOBAL
        opcodes = "U!" + "m" * 33 + "U!" + "n" * 33 + "q\u0093)R."
        opening = '{"__metadata__":{"x":"'
        skip = 8 + len(opening) - 2
        length = ord("C") + (skip << 8)
        text = (opening + opcodes + '"}}').encode()
        data = length.to_bytes(8, "little") + text.ljust(length)
        assert self.kinds(tmp_path, data) == ("safetensors", {"bare-pickle"})


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nb", "a\u202eb", "a\u200bb", "a\ud800b", "\x7f"])
def test_keys_that_a_terminal_would_obey_are_told(tmp_path, name):
    container = opened(tmp_path, pickle.dumps({"plain": {"ümläut 中": 1, name: 2}}, 4))
    assert [(fault.kind, fault.scope) for fault in container.faults] == [("odd-key", "object")]
    assert container.faults[0].where.isascii()


def test_every_error_is_one_of_ours(tmp_path):
    for cut in range(1, 60):
        data = pickle.dumps({"x": Payload(), "y": [1, 2.0, "three"]}, 4)[:cut]
        try:
            opened(tmp_path, data)
        except CkptoolsError:
            continue
        raise AssertionError("a broken pickle was listed")
