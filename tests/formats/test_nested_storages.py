"""Tensors in plain pickles: their values, and what hides in their bytes."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptools.formats import open_container
from ckptools.layouts import open as open_checkpoint
from ckptools.sources.arrays import read_array
from ckptools.types.container import Container

LOADER = "torch.storage._load_from_bytes"


class Harmful:
    """What would run a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("true",)


class Loaded:
    """A call of torch's loader with bytes of anybody's choice."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return torch.storage._load_from_bytes, (self.data,)


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def opened(data: bytes, tmp_path: Path) -> Container:
    (tmp_path / "model.pkl").write_bytes(data)
    return open_container(str(tmp_path / "model.pkl"))


def grades(container: Container) -> dict[str, str]:
    return {use.name: use.grade for use in container.globals}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_of_a_pickled_state_dict(protocol: int, tmp_path: Path) -> None:
    weight = torch.randn(4, 3)
    theirs = {
        "0.weight": torch.nn.Parameter(weight),
        "0.tied": weight.t(),
        "0.half": torch.randn(5).half(),
        "0.count": torch.tensor(7),
        "0.empty": torch.empty(0, 2),
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": theirs, "epoch": 3}, protocol=protocol))
    checkpoint = open_checkpoint(path)
    assert checkpoint.container.faults == ()
    assert set(grades(checkpoint.container).values()) == {"known"}
    assert checkpoint.run.epoch == 3
    ours = {tensor.key: tensor.ref for tensor in checkpoint.tensors()}
    assert list(ours) == list(theirs)
    for key, tensor in theirs.items():
        np.testing.assert_array_equal(read_array(ours[key]), tensor.detach().numpy())
    assert ours["0.weight"].parameter


def test_what_hides_in_the_bytes_is_named(tmp_path: Path) -> None:
    container = opened(pickle.dumps({"w": Loaded(saved([Harmful()]))}, protocol=4), tmp_path)
    assert grades(container)[LOADER] == "dangerous"


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_what_hides_beside_a_storage_is_named(tmp_path: Path) -> None:
    whole = torch.storage.TypedStorage(
        wrap_storage=torch.ones(2).untyped_storage(), dtype=torch.float32, _internal=True
    )
    storage = saved(whole)
    read = io.BytesIO(storage)
    for _ in ("magic number", "version", "facts about the machine"):
        pickle.load(read)
    head = read.tell()
    harmful = pickle.dumps(Harmful(), protocol=2)[:-1] + b"0"  # called, then thrown away
    injected = storage[:head] + harmful + storage[head + 2 :]
    assert len(torch.storage._load_from_bytes(injected).untyped()) == 8  # torch sees nothing
    container = opened(pickle.dumps({"w": Loaded(injected)}, protocol=4), tmp_path)
    assert grades(container)["posix.system"] == "dangerous"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", saved([1, 2])[:-3]])
def test_bytes_that_are_no_storage_stay_dangerous(data: bytes, tmp_path: Path) -> None:
    whole = {"a": torch.ones(3), "b": Loaded(data)}
    container = opened(pickle.dumps(whole, protocol=4), tmp_path)
    assert grades(container)[LOADER] == "dangerous"


def test_a_second_pickle_is_not_vouched_for(tmp_path: Path) -> None:
    data = pickle.dumps({"a": torch.ones(3)}) + pickle.dumps(Loaded(saved([Harmful()])))
    assert grades(opened(data, tmp_path))[LOADER] == "dangerous"
