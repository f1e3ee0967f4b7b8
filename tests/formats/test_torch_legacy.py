import argparse
import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from ckptools.errors import CorruptFile
from ckptools.formats.opening import open_container, recognised
from ckptools.formats.torch_legacy import TorchLegacy
from ckptools.sources.arrays import read_array
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import class_name, entries, unwrap
from tests.builders.legacy_files import floats, legacy, saved, tensor_pickle
from tests.builders.memory_source import CountingSource
from tests.builders.shared import shared

reader = TorchLegacy()


def read(data):
    source = CountingSource(data)
    assert recognised(source) == ["torch-legacy"]
    return reader.open("m.pth", source)


def tensors(container):
    return {key: unwrap(node) for key, node in entries(container.root)}


def kinds(container):
    return [fault.kind for fault in container.faults]


DTYPES = ["float64", "float32", "float16", "bfloat16", "complex64", "complex128", "int64", "int32"]
DTYPES += ["int16", "int8", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("protocol", [2, 4])
def test_every_dtype_reads_as_torch_reads_it(dtype, protocol):
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(torch, dtype))
    container = read(saved({"w": tensor, "t": tensor.t()}, protocol))
    assert container.faults == ()
    for key, expected in (("w", tensor), ("t", tensor.t())):
        ref = tensors(container)[key]
        assert (ref.dtype, ref.shape) == (dtype, tuple(expected.shape))
        widest = torch.complex128 if tensor.is_complex() else torch.float64
        np.testing.assert_array_equal(
            read_array(ref).astype(complex), expected.to(widest).numpy().astype(complex)
        )


def test_aliases_stay_aliases_and_odd_tensors_are_listed():
    base = torch.arange(12.0)
    value = {
        "a": base[:4],
        "b": base.view(3, 4)[1],
        "step": base.view(3, 4)[:, 2],
        "scalar": torch.tensor(7.0),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    container = read(saved(value))
    found = tensors(container)
    assert container.faults == ()
    assert found["a"].storage == found["b"].storage
    for key, tensor in value.items():
        np.testing.assert_array_equal(read_array(found[key]), tensor.detach().numpy())
    assert found["parameter"].requires_grad is True
    assert found["parameter"].parameter is True


def test_objects_stay_inert():
    value = {"args": argparse.Namespace(lr=0.1), "epoch": 3, "w": torch.ones(1)}
    container = read(saved(value))
    found = dict(entries(container.root))
    assert class_name(found["args"]) == "argparse.Namespace"
    assert found["epoch"] == 3
    assert {use.grade for use in container.globals} == {"known"}


def test_a_whole_module_is_listed_with_its_classes():
    container = read(saved(torch.nn.Linear(2, 3)))
    assert class_name(container.root) == "torch.nn.modules.linear.Linear"
    assert container.faults == ()


def test_the_data_are_not_read():
    source = CountingSource(saved({"w": torch.zeros(1 << 20)}))
    reader.open("m", source)
    assert source.bytes_read < 100_000


def test_several_storages_are_found_in_the_order_of_the_keys():
    value = OrderedDict((f"w{i}", torch.full((i + 1,), float(i))) for i in range(30))
    found = tensors(read(saved(value)))
    for key, tensor in value.items():
        np.testing.assert_array_equal(read_array(found[key]), tensor.numpy())


def test_views_of_the_oldest_files():
    data = legacy(tensor_pickle("a", 8, ("v", 2, 4)), ["a"], floats(*range(8)))
    container = read(data)
    assert container.faults == ()
    assert read_array(tensors(container)["w"]).tolist() == [2, 3, 4, 5]
    assert torch.load(io.BytesIO(data), weights_only=False)["w"].tolist() == [2, 3, 4, 5]


def old_parameter(requires_grad):
    """Return the pickle of {"w": Parameter} as torch 0.3 spelled it."""
    tensor = tensor_pickle("a", 4)[6:-2]
    flag = b"\x88" if requires_grad else b"\x89"
    call = b"ctorch.nn.parameter\nParameter\n" + tensor + b"\x85R("
    return b"\x80\x02}U\x01w" + call + flag + b"\x89ccollections\nOrderedDict\n)Rtbs."


@pytest.mark.parametrize("flag", [True, False])
def test_parameters_as_torch_0_3_spelled_them(flag):
    container = read(legacy(old_parameter(flag), ["a"], floats(1, 2, 3, 4)))
    ref = tensors(container)["w"]
    assert isinstance(ref, TensorRef)
    assert (ref.parameter, ref.requires_grad) == (True, flag)
    assert read_array(ref).tolist() == [1, 2, 3, 4]


class TestTruncated:
    data = saved({name: torch.full((100,), float(i)) for i, name in enumerate("abc")})

    def test_what_lies_before_the_cut_is_salvaged(self):
        container = read(self.data[:-500])
        found = tensors(container)
        whole = [key for key, ref in found.items() if ref.readable]
        assert len(found) == 3
        assert len(whole) == 1
        for key in whole:
            assert read_array(found[key]).tolist() == ["abc".index(key)] * 100
        assert kinds(container) == ["truncated", "truncated"]
        assert len(container.not_judged) == 2

    def test_a_cut_before_the_data_leaves_the_names(self):
        keys_end = len(self.data) - 3 * 408
        for cut in (keys_end, keys_end - 5):
            container = read(self.data[:cut])
            assert sorted(tensors(container)) == ["a", "b", "c"]
            assert not any(ref.readable for ref in tensors(container).values())
            assert "truncated" in kinds(container)

    def test_a_cut_inside_the_object_is_refused_with_the_reason(self):
        with pytest.raises(CorruptFile, match="ends inside the pickle of the object"):
            read(self.data[:300])

    @pytest.mark.parametrize("cut", range(20, 1700, 37))
    def test_every_cut_is_told(self, cut):
        try:
            container = read(self.data[: len(self.data) - cut])
        except CorruptFile:
            return
        assert "truncated" in kinds(container)


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def test_other_pickles_of_the_file_are_read_for_their_names():
    content = tensor_pickle("a", 4)
    head = len(legacy(content)) - len(pickle.dumps([], 2))
    keys = pickle.dumps(Payload(), 2)
    container = read(legacy(content)[:head] + keys)
    assert "malformed-keys" in kinds(container)
    assert any(use.name.endswith(".print") and use.grade != "known" for use in container.globals)
    container = read(legacy(content, ["a"], floats(1, 2, 3, 4), info=Payload()))
    assert kinds(container) == ["unexpected-pickle"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (legacy(tensor_pickle("a", 4), ["a"], floats(1, 2, 3, 4) + b"more"), "trailing-bytes"),
        (legacy(tensor_pickle("a", 4), ["a", "b"], floats(1, 2, 3, 4)), "orphan-record"),
        (legacy(tensor_pickle("a", 4), ["a", "a"], floats(1, 2, 3, 4) * 2), "duplicate-record"),
        (legacy(tensor_pickle("a", 4), ["a"], floats(1, 2, 3)), "storage-size-mismatch"),
        (legacy(tensor_pickle("a", 4), []), "missing-storage"),
        (legacy(tensor_pickle("a", 4), [7]), "malformed-keys"),
        (legacy(tensor_pickle("a", 3), ["a"], floats(1, 2, 3)), "tensor-out-of-bounds"),
        (legacy(tensor_pickle("a", 1 << 34), ["a"], (1 << 34).to_bytes(8, "little")), "truncated"),
        (legacy(tensor_pickle("a", -4), ["a"], floats(1, 2, 3, 4)), "bad-persistent-id"),
        (
            legacy(tensor_pickle("a", 4, ("v", 1000, 4)), ["a"], floats(1, 2, 3, 4)),
            "bad-persistent-id",
        ),
    ],
)
def test_contradictions_are_faults(data, kind):
    assert kind in kinds(read(data))


def test_a_wrong_version_is_refused():
    with pytest.raises(CorruptFile, match="1001"):
        read(legacy(tensor_pickle("a", 4), ["a"], version=1002))


def test_a_magic_number_that_is_computed_is_no_legacy_file():
    data = b"cbuiltins\neval\n(X\x04\x00\x00\x000x19tR." + legacy(b"N.")
    assert recognised(CountingSource(data)) == ["bare-pickle"]


def test_real_files_of_one_run():
    folder = shared("data/series/cgcnn")
    for name, epoch in (("checkpoint.pth.tar", 30), ("model_best.pth.tar", 3)):
        path = str(folder / name)
        container = open_container(path)
        theirs = torch.load(path, weights_only=False, map_location="cpu")
        assert container.format == "torch-legacy"
        assert container.faults == ()
        found = tensors(container)
        assert found["epoch"] == epoch
        weights = {key: unwrap(node) for key, node in entries(found["state_dict"])}
        assert list(weights) == list(theirs["state_dict"])
        for key, tensor in theirs["state_dict"].items():
            np.testing.assert_array_equal(read_array(weights[key]), tensor.numpy())
