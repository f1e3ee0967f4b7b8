"""Batches: drawn from random numbers of their own, moved to a device, and known by a digest."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

_END = object()


def isolated(make: Callable[[], Iterable[Any]], seed: int) -> Iterator[Any]:
    """Yield what ``make()`` gives, its random numbers seeded and kept apart from everyone else's.

    A loader that shuffles with the global generators then gives the same batches for the same
    seed, however many random numbers (dropout) the model draws in between.
    """
    with _own_random(_seeded_state(seed)) as state:
        iterator = iter(make())
    while True:
        with _own_random(state) as state:
            batch = next(iterator, _END)
        if batch is _END:
            return
        yield batch


_State = list[Any]


@contextmanager
def _own_random(state: _State) -> Iterator[_State]:
    """Use other generators' states inside; what they become is put into the list."""
    before = _read()
    _write(state)
    try:
        yield state
    finally:
        state[:] = _read()
        _write(before)


def _read() -> _State:
    return [random.getstate(), np.random.get_state(), torch.get_rng_state()]


def _write(state: _State) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


def _seeded_state(seed: int) -> _State:
    """Return the states of the three generators seeded with ``seed``."""
    python = random.Random(seed).getstate()
    numpy = np.random.RandomState(seed % 2**32).get_state()
    return [python, numpy, torch.Generator().manual_seed(seed).get_state()]


def moved(batch: Any, device: str) -> Any:
    """Return the batch with all tensors in it on ``device``; containers keep their types."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        found = {name: moved(value, device) for name, value in batch.items()}
        return found if type(batch) is dict else _like(batch, found)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(moved(value, device) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {one.name: getattr(batch, one.name) for one in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **{n: moved(v, device) for n, v in fields.items()})
    return batch.to(device) if hasattr(batch, "to") else batch


def _like(batch: Mapping[str, Any], found: dict[str, Any]) -> Any:
    """Return the values in a mapping of the batch's own type, by its own ``to`` where it has one.

    (A tokenizer's batch also carries what is no item of it.)
    """
    if hasattr(batch, "to"):
        device = next((v.device for v in found.values() if isinstance(v, Tensor)), None)
        return batch if device is None else batch.to(device)
    return type(batch)(found)  # type: ignore[call-arg]


def digest(batches: Iterable[Any]) -> str:
    """Return a digest of the content of batches: values, shapes and types, whatever the device."""
    found = hashlib.sha256()
    for batch in batches:
        _feed(found, batch)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    """Add one value to the digest; what is neither tensor, container nor plain counts by type."""
    if isinstance(value, Tensor):
        found.update(f"{value.dtype}{tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    elif isinstance(value, np.ndarray):
        found.update(f"{value.dtype}{value.shape}".encode())
        found.update(value.tobytes() if value.dtype != object else repr(value.tolist()).encode())
    elif isinstance(value, Mapping):
        for name in value:
            found.update(repr(name).encode())
            _feed(found, value[name])
    elif isinstance(value, (list, tuple)):
        found.update(f"{len(value)}".encode())
        for one in value:
            _feed(found, one)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for one in dataclasses.fields(value):
            _feed(found, getattr(value, one.name))
    elif isinstance(value, (str, bytes, int, float, bool, type(None))):
        found.update(repr(value).encode())
    else:
        found.update(type(value).__qualname__.encode())
