"""Inert trees as a reader would give them, made from plain Python and numpy values."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckptools.sources.memory import MemorySource
from ckptools.types.container import Container
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import Global, Instance, Pairs


class Thing:
    """An object of a class that does not exist here, e.g. ``Thing("models.yolo.Model", {...})``."""

    def __init__(self, name: str, state: dict[str, Any] | None = None, args: tuple = ()) -> None:
        self.name = name
        self.state = state
        self.args = args


class Parameter:
    """An array that was saved as ``torch.nn.Parameter``."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, dtype=np.float32)


def tensor(values: Any, *, parameter: bool | None = None) -> TensorRef:
    """Return a reference to an array's bytes."""
    array = np.ascontiguousarray(values)
    array = array.astype(np.float32) if array.dtype == np.float64 else array
    shape = np.shape(values)
    raw = array.tobytes()
    storage = Storage("data/0", MemorySource("test", raw), 0, len(raw), len(raw))
    strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    return TensorRef(array.dtype.name, shape, strides, 0, storage, parameter=parameter)


def tree(value: Any) -> Any:
    """Return the inert tree of dicts, lists, tuples, arrays, things and plain values."""
    if isinstance(value, dict):
        return Pairs([(tree(key), tree(one)) for key, one in value.items()])
    if isinstance(value, (list, tuple)):
        return type(value)(tree(one) for one in value)
    if isinstance(value, Parameter):
        return tensor(value.values, parameter=True)
    if isinstance(value, np.ndarray):
        return tensor(value)
    if isinstance(value, Thing):
        module, _, name = value.name.rpartition(".")
        return Instance(
            Global(module, name),
            args=tuple(tree(one) for one in value.args),
            state=None if value.state is None else tree(value.state),
            has_state=value.state is not None,
        )
    return value


def container(value: Any, format: str = "torch-zip", **more: Any) -> Container:
    """Return a container whose root is the tree of ``value``."""
    return Container("test.pth", format, 0, tree(value), **more)


def state_dict(*names: str, width: int = 4) -> dict[str, np.ndarray]:
    """Return arrays by name: vectors for biases, matrices for the rest, each of its own values."""
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=(width,) if name.endswith("bias") else (width, width))
        for name in names
    }


def adam(shapes: list[tuple[int, ...]], step: float = 7.0, **settings: Any) -> dict[str, Any]:
    """Return what ``torch.optim.Adam.state_dict()`` gives for one group."""
    defaults = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    group = {**defaults, "amsgrad": False, **settings, "params": list(range(len(shapes)))}
    state = {
        index: {
            "step": np.array(step, np.float32),
            "exp_avg": np.zeros(shape, np.float32),
            "exp_avg_sq": np.zeros(shape, np.float32),
        }
        for index, shape in enumerate(shapes)
    }
    return {"state": state, "param_groups": [group]}


def module(name: str, parameters: dict, modules: dict | None = None, **more: Any) -> Thing:
    """Return a pickled ``torch.nn.Module``."""
    state = {
        "training": True,
        "_parameters": {key: Parameter(one) for key, one in parameters.items()},
        "_buffers": more.pop("buffers", {}),
        "_modules": modules or {},
        **more,
    }
    return Thing(name, state)
