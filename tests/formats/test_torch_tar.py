import io
import pickle
import tarfile

import numpy as np
import pytest
import torch

from ckptools.errors import CorruptFile, UnknownFormat
from ckptools.formats.opening import open_container, recognised
from ckptools.formats.torch_tar import TorchTar
from ckptools.sources.arrays import read_array
from ckptools.types.tree import entries, unwrap
from tests.builders.memory_source import CountingSource
from tests.builders.tar_files import archive, content, members, number, small, storages, tensors

reader = TorchTar()


def read(data):
    source = CountingSource(data)
    assert recognised(source)[0] == "torch-tar"
    return reader.open("m.tar", source)


def kinds(container):
    return [fault.kind for fault in container.faults]


def replaced(**changes):
    return archive([(name, changes.get(name, data)) for name, data in members()])


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_file_reads_as_torch_reads_it(tmp_path, format):
    path = tmp_path / "old.tar"
    path.write_bytes(small(format))
    theirs = torch.load(str(path), weights_only=False)
    container = open_container(str(path))
    ours = {key: unwrap(node) for key, node in entries(container.root)}
    assert container.format == "torch-tar"
    assert container.faults == ()
    assert list(ours) == ["weight", "transposed", "counts", "part"] == list(theirs)
    for key, tensor in theirs.items():
        np.testing.assert_array_equal(read_array(ours[key]), tensor.numpy())
    assert ours["weight"].storage.start == ours["transposed"].storage.start


def test_of_two_members_the_last_one_counts_as_in_torch(tmp_path):
    path = tmp_path / "old.tar"
    path.write_bytes(archive([*members(), ("pickle", content({"other": 101}))]))
    assert list(torch.load(str(path), weights_only=False)) == ["other"]
    container = open_container(str(path))
    assert [key for key, _ in container.root.entries] == ["other"]
    assert kinds(container) == ["duplicate-record"]


def test_a_class_with_source_code_becomes_its_name():
    triple = b"(ccollections\nOrderedDict\nX\x01\x00\x00\x00fX\x01\x00\x00\x00stQ"
    container = read(replaced(pickle=b"\x80\x02" + triple + b")R."))
    assert entries(container.root) == []
    assert container.faults == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../../etc/passwd", "path-traversal"),
        ("/etc/passwd", "path-traversal"),
        ("readme", "unexpected-record"),
        ("./storages", "unexpected-record"),
    ],
)
def test_members_that_torch_never_writes_are_faults(name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    container = read(archive([*members(), (name, b"x")]))
    assert kinds(container) == [kind]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_a_member_that_is_no_file_is_refused(kind):
    buffer = io.BytesIO(archive(members()))
    with tarfile.open(fileobj=buffer, mode="a:") as tar:
        info = tarfile.TarInfo("pickle")
        info.type, info.linkname = kind, "storages"
        tar.addfile(info)
    with pytest.raises(CorruptFile, match="no regular file"):
        read(buffer.getvalue())


class Payload:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("member", ["storages", "tensors"])
def test_a_payload_in_the_counts_is_named_and_refused(member, capsys):
    with pytest.raises(CorruptFile, match="print"):
        read(replaced(**{member: pickle.dumps(Payload(), 4)}))
    assert capsys.readouterr().out == ""


def test_a_payload_in_the_object_is_listed_inertly(capsys):
    container = read(replaced(pickle=pickle.dumps(Payload(), 4)))
    assert [(use.name, use.grade) for use in container.globals if "print" in use.name] == [
        ("builtins.print", "dangerous")
    ]
    assert capsys.readouterr().out == ""


WEIGHTS = {1: np.arange(6, dtype="f4"), 2: np.zeros(3, "i8")}


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((2, 3), (1 << 60, 1), 0),
        ((-1,), (1,), 0),
        ((6,), (1,), 1),
        ((1,), (1,), -1),
        ((1 << 62, 1 << 62), (0, 0), 0),
    ],
)
def test_a_tensor_outside_of_its_storage_is_listed_without_values(shape, strides, offset):
    described = {101: (1, shape, strides, offset)}
    container = read(replaced(tensors=tensors(described), pickle=content({"w": 101})))
    ref = unwrap(container.root.entries[0][1])
    assert kinds(container) == ["tensor-out-of-bounds"]
    assert not ref.readable


@pytest.mark.parametrize(
    "changes",
    [
        {"storages": storages(WEIGHTS, [(5, 1, 4, 4)])},
        {"storages": storages(WEIGHTS, [(5, 99, 0, 1)])},
        {"storages": storages(WEIGHTS, [(5, 1, -1, 1)])},
        {"storages": storages(WEIGHTS)[:-40]},
        {"storages": pickle.dumps(-1, 2)},
        {"storages": pickle.dumps(1 << 40, 2)},
        {"storages": pickle.dumps(1, 2) + b"\x80\x02(" + number(1) + b"NNt."},
        {"storages": pickle.dumps(1, 2) + pickle.dumps([1], 2)},
        {"tensors": tensors({101: (99, (1,), (1,), 0)})},
        {"tensors": tensors({101: (1, (1,) * 65, (1,) * 65, 0)})},
        {"tensors": tensors({101: (1, (1,), (1,), 0)})[:-3]},
        {"pickle": b"\x80\x02"},
        {"pickle": b""},
    ],
)
def test_what_contradicts_itself_is_refused(changes):
    with pytest.raises(CorruptFile):
        read(replaced(**changes))


def test_a_persistent_id_of_nothing_is_a_fault():
    container = read(replaced(pickle=content({"w": 12345})))
    assert kinds(container) == ["missing-storage"]


def test_other_archives_are_not_torch():
    with pytest.raises(UnknownFormat, match="tar archive of readme,"):
        read(archive([("readme", b"hello")]))
    with pytest.raises(CorruptFile, match="tensors"):
        read(archive(members()[:1]))


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1"},
        {"size": "x"},
        {"linkpath": "/etc/passwd"},
        {"hdrcharset": "BINARY"},
    ],
)
def test_extended_headers_that_hide_bytes_are_refused(headers):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), headers
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(CorruptFile, match="extended tar header"):
        read(buffer.getvalue())


def test_an_extended_path_renames_as_in_torch(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members():
            info = tarfile.TarInfo(f"decoy-{name}")
            info.size, info.pax_headers = len(data), {"path": name}
            tar.addfile(info, io.BytesIO(data))
    path = tmp_path / "old.tar"
    path.write_bytes(buffer.getvalue())
    assert "weight" in torch.load(str(path), weights_only=False)
    assert kinds(open_container(str(path))) == []


def test_every_cut_is_told():
    data = small()
    end = max(index for index, byte in enumerate(data) if byte)
    for cut in range(0, end, 97):
        source = CountingSource(data[:cut])
        if not reader.sniff(source):
            assert cut < 512
            continue
        with pytest.raises((CorruptFile, UnknownFormat)):
            reader.open("m.tar", source)
