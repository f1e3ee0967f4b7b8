from __future__ import annotations

import random
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from ckptools.rerun.batches import digest, isolated, moved

Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class Scene:
    x: torch.Tensor
    name: str


def draws() -> Iterator[float]:
    while True:
        yield random.random() + np.random.rand() + float(torch.rand(1))


def test_batches_depend_on_their_seed_alone() -> None:
    undisturbed = list(islice(isolated(draws, 3), 4))
    disturbed = []
    for value in islice(isolated(draws, 3), 4):
        disturbed.append(value)
        torch.rand(5)
        np.random.rand(5)
        random.random()
    assert disturbed == undisturbed
    assert list(islice(isolated(draws, 4), 4)) != undisturbed


def test_whoever_draws_beside_them_is_not_disturbed() -> None:
    def alone(steps: int) -> list[Any]:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        found = []
        batches = isolated(draws, 3)
        for _ in range(steps):
            if steps > 1:
                next(batches)
            found = [random.random(), np.random.rand(), float(torch.rand(1))]
        return found

    first = alone(1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    next(isolated(draws, 9))
    assert [random.random(), np.random.rand(), float(torch.rand(1))] == first


def test_nested_containers_keep_their_types_on_another_device() -> None:
    x = torch.ones(2)
    batch = {
        "list": [x, 1],
        "tuple": (x, "a"),
        "pair": Pair(x, x),
        "scene": Scene(x, "a"),
        "ordered": OrderedDict(a=x),
        "none": None,
    }
    found = moved(batch, "meta")
    assert found["list"][0].device.type == "meta"
    assert found["list"][1] == 1
    assert isinstance(found["tuple"], tuple)
    assert isinstance(found["pair"], Pair)
    assert found["pair"].y.device.type == "meta"
    assert found["scene"].x.device.type == "meta"
    assert found["scene"].name == "a"
    assert isinstance(found["ordered"], OrderedDict)
    assert found["ordered"]["a"].device.type == "meta"
    assert found["none"] is None


def test_a_digest_tells_values_shapes_and_types() -> None:
    x = torch.arange(4.0)
    different = [
        [{"x": x}],
        [{"y": x}],
        [{"x": x + 1}],
        [{"x": x.reshape(2, 2)}],
        [{"x": x.double()}],
        [{"x": x.numpy().astype("f8")}],
        [{"x": [1, 2]}],
        [{"x": [1, 3]}],
        [{"x": Scene(x, "a")}],
        [{"x": Scene(x, "b")}],
        [{"x": torch.empty(0)}],
        [{"x": np.array(["a"], dtype=object)}],
        [x, x],
        [],
    ]
    assert len({digest(one) for one in different}) == len(different)
    assert digest([{"x": x.clone().t()}]) == digest([{"x": x}])
    assert digest([{"x": x.bfloat16()}]) == digest([{"x": x.bfloat16()}])
