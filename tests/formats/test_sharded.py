import json
import os

import numpy as np
import pytest
import safetensors.numpy
import torch

from ckptools.errors import CorruptFile, MissingShard, UnknownFormat
from ckptools.formats import open_container
from ckptools.sources.arrays import read_array
from ckptools.types.tree import unwrap

ARRAYS = {
    "model-1.safetensors": {"a": np.arange(4, dtype="f4"), "b": np.ones((2, 3), "f4")},
    "model-2.safetensors": {"c": np.zeros(5, "f4")},
}
MAP = {key: shard for shard, arrays in ARRAYS.items() for key in arrays}


def write(folder, weight_map=MAP, name="model.safetensors.index.json"):
    for shard, arrays in ARRAYS.items():
        safetensors.numpy.save_file(arrays, folder / shard)
    text = weight_map if isinstance(weight_map, str) else json.dumps(weight_map)
    path = folder / name
    path.write_text(f'{{"metadata": {{"total_size": 60}}, "weight_map": {text}}}')
    return str(path)


def tensors(container):
    return {key: unwrap(node) for key, node in container.root.entries}


def kinds(container):
    return [fault.kind for fault in container.faults]


def test_all_shards_are_read_as_one(tmp_path):
    container = open_container(write(tmp_path))
    assert container.format == "sharded"
    assert container.faults == ()
    assert container.metadata["total_size"] == 60
    assert sorted(container.parts) == sorted(ARRAYS)
    for arrays in ARRAYS.values():
        for key, array in arrays.items():
            np.testing.assert_array_equal(read_array(tensors(container)[key]), array)
    assert container.size_bytes == sum(os.path.getsize(tmp_path / n) for n in os.listdir(tmp_path))


@pytest.mark.parametrize("new", [True, False])
def test_shards_written_by_torch(tmp_path, new):
    for shard, value in (("p-1.bin", 1.0), ("p-2.bin", 2.0)):
        content = {shard: torch.full((3,), value)}
        torch.save(content, tmp_path / shard, _use_new_zipfile_serialization=new)
    path = tmp_path / "pytorch_model.bin.index.json"
    path.write_text(json.dumps({"weight_map": {"p-1.bin": "p-1.bin", "p-2.bin": "p-2.bin"}}))
    container = open_container(str(path))
    found = tensors(container)
    assert container.faults == ()
    assert [read_array(found[key])[0] for key in ("p-1.bin", "p-2.bin")] == [1, 2]
    names = [found[key].storage.name for key in found]
    assert len(set(names)) == 2
    assert all(name.startswith("p-") for name in names)
    assert {use.name for use in container.globals} >= {"torch._utils._rebuild_tensor_v2"}


def test_links_into_a_cache_are_followed(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    write(blobs)
    for name in os.listdir(blobs):
        (snapshot / name).symlink_to(blobs / name)
    container = open_container(str(snapshot / "model.safetensors.index.json"))
    assert sorted(tensors(container)) == ["a", "b", "c"]


def test_a_missing_shard_is_told_and_the_rest_listed(tmp_path):
    path = write(tmp_path)
    os.remove(tmp_path / "model-1.safetensors")
    container = open_container(path)
    assert list(tensors(container)) == ["c"]
    assert kinds(container) == ["missing-shard"]
    assert container.faults[0].evidence == {"tensors": 2}
    assert container.not_judged == ("model-1.safetensors: missing, with 2 tensors",)


def test_no_shard_at_all(tmp_path):
    path = write(tmp_path)
    for shard in ARRAYS:
        os.remove(tmp_path / shard)
    with pytest.raises(MissingShard, match="none of the 2 shards"):
        open_container(path)


def test_an_unreadable_shard_is_told_and_the_rest_listed(tmp_path):
    path = write(tmp_path)
    (tmp_path / "model-1.safetensors").write_bytes(b"\0" * 100)
    container = open_container(path)
    assert list(tensors(container)) == ["c"]
    assert kinds(container) == ["unreadable-shard"]
    (tmp_path / "model-2.safetensors").write_bytes(b"")
    with pytest.raises(UnknownFormat):
        open_container(path)


def test_faults_of_a_shard_are_faults_of_the_whole(tmp_path):
    path = write(tmp_path)
    with open(tmp_path / "model-2.safetensors", "ab") as file:
        file.write(b"more")
    container = open_container(path)
    assert [(fault.kind, fault.where) for fault in container.faults] == [
        ("trailing-bytes", "model-2.safetensors: end of file")
    ]


def test_index_and_shard_that_disagree(tmp_path):
    path = write(tmp_path, {**MAP, "b": "model-2.safetensors", "d": "model-2.safetensors"})
    container = open_container(path)
    evidence = {(fault.kind, fault.where): fault.evidence for fault in container.faults}
    assert evidence == {
        ("missing-tensor", "model-2.safetensors"): {"names": ["b", "d"], "tensors": 2},
        ("unlisted-tensor", "model-1.safetensors"): {"names": ["b"], "tensors": 1},
    }
    assert sorted(tensors(container)) == ["a", "b", "c"]


def test_a_key_that_is_named_twice(tmp_path):
    text = '{"a": "model-1.safetensors", "b": "model-1.safetensors", "a": "model-2.safetensors"}'
    assert "duplicate-key" in kinds(open_container(write(tmp_path, text)))


@pytest.mark.parametrize(
    "name",
    [
        "../x.bin",
        "/etc/passwd",
        "a/b.bin",
        "..",
        ".",
        "",
        "a\\b",
        "x\0y",
        7,
        None,
        ["x"],
        "x" * 300,
    ],
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(CorruptFile, match="plain name"):
        open_container(write(tmp_path, {"a": name}))


@pytest.mark.parametrize("weight_map", ["{}", "[]", "7", '{"a": ' + "[" * 100_000, '{"a": NaN}'])
def test_an_index_that_cannot_be_understood_is_refused(tmp_path, weight_map):
    with pytest.raises(CorruptFile):
        open_container(write(tmp_path, weight_map))


def test_an_index_of_indexes_ends(tmp_path):
    name = "model.safetensors.index.json"
    with pytest.raises(UnknownFormat, match="index"):
        open_container(write(tmp_path, {"a": name}, name))


@pytest.mark.parametrize("kind", ["folder", "fifo", "loop"])
def test_a_shard_that_is_no_file_does_not_hang(tmp_path, kind):
    path = write(tmp_path, {**MAP, "x": "odd"})
    if kind == "folder":
        (tmp_path / "odd").mkdir()
    elif kind == "fifo":
        os.mkfifo(tmp_path / "odd")
    else:
        (tmp_path / "odd").symlink_to("odd")
    container = open_container(path)
    assert kinds(container) == ["unreadable-shard"]
    assert len(tensors(container)) == 3


def test_a_shard_that_is_no_state_dict(tmp_path):
    path = write(tmp_path, {**MAP, "x": "odd.bin"})
    torch.save([torch.ones(2)], tmp_path / "odd.bin")
    assert kinds(open_container(path)) == ["not-a-state-dict"]
