"""Every registered container format, whoever registered it: an example reads back as written."""

import io
import json
import pickle
import warnings

import numpy as np
import pytest
import safetensors.numpy
import torch

from ckptools.formats import open_container
from ckptools.formats.opening import recognised
from ckptools.formats.registry import formats
from ckptools.sources import open_source
from ckptools.sources.arrays import read_array
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import entries, unwrap
from ckptools.workflows.convert import convert
from tests.builders.legacy_files import saved
from tests.builders.tar_files import small

VALUES = {"weight": np.arange(6, dtype="f4").reshape(2, 3), "counts": np.array([7, 8, 9])}
TENSORS = {key: torch.from_numpy(array) for key, array in VALUES.items()}


def torch_zip(folder):
    torch.save(TENSORS, folder / "file")


def torchscript(folder):
    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for key, tensor in TENSORS.items():
                self.register_buffer(key, tensor)

        def forward(self, x):
            return x

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the format old
        torch.jit.save(torch.jit.script(Holder()), buffer)
    (folder / "file").write_bytes(buffer.getvalue())


def sharded(folder):
    for key, array in VALUES.items():
        safetensors.numpy.save_file({key: array}, folder / f"{key}.shard")
    (folder / "file").write_text(json.dumps({"weight_map": {k: f"{k}.shard" for k in VALUES}}))


EXAMPLES = {
    "torch-zip": torch_zip,
    "torchscript": torchscript,
    "torch-legacy": lambda folder: (folder / "file").write_bytes(saved(TENSORS)),
    "torch-tar": lambda folder: (folder / "file").write_bytes(small()),
    "safetensors": lambda folder: safetensors.numpy.save_file(VALUES, folder / "file"),
    "sharded": sharded,
    "bare-pickle": lambda folder: (folder / "file").write_bytes(pickle.dumps(VALUES)),
}


@pytest.fixture
def example(request, tmp_path):
    EXAMPLES[request.param](tmp_path)
    return str(tmp_path / "file")


def test_every_format_has_an_example():
    assert set(formats.names()) <= set(EXAMPLES)


@pytest.mark.parametrize(
    ("name", "example"), [(name, name) for name in EXAMPLES], indirect=["example"]
)
class TestEveryFormat:
    def test_the_values_are_those_written(self, name, example):
        container = open_container(example)
        found = {key: unwrap(node) for key, node in entries(container.root)}
        assert container.format == name
        assert container.faults == ()
        assert container.not_judged == () or name == "torchscript"
        assert set(VALUES) <= set(found)
        for key, array in VALUES.items():
            assert isinstance(found[key], TensorRef)
            np.testing.assert_array_equal(read_array(found[key]), array)

    def test_only_its_own_reader_recognises_it(self, name, example):
        with open_source(example) as source:
            assert len(recognised(source)) == 1

    def test_nothing_dangerous_is_named(self, name, example):
        assert {use.grade for use in open_container(example).globals} <= {"known"}

    def test_it_becomes_a_file_that_torch_reads(self, name, example, tmp_path):
        convert(example, tmp_path / "new.pth", to="torch-zip")
        theirs = torch.load(tmp_path / "new.pth", weights_only=name != "bare-pickle")
        for key, array in VALUES.items():
            np.testing.assert_array_equal(np.asarray(theirs[key]), array)
