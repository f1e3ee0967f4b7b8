"""Valid files of every format, and ways to damage them at random or region by region."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from collections.abc import Iterator

import numpy as np
import safetensors.numpy
import torch

from tests.builders.legacy_files import saved
from tests.builders.tar_files import small
from tests.builders.zip_files import zipped

#: numbers that lie on some edge of a header field
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1)


def _value() -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 6, generator=generator)
    return {
        "epoch": 3,
        "model": {"layers.0.weight": weights, "layers.0.bias": torch.zeros(6).half()},
        "optimizer": {
            "state": {0: {"step": torch.tensor(5.0), "exp_avg": weights.t()}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0]}],
        },
        "rng": np.random.RandomState(0).get_state(),
        "sparse": torch.eye(3).to_sparse(),
    }


def seeds() -> dict[str, bytes]:
    """Return one small valid file of each format."""
    value = _value()
    zipped = io.BytesIO()
    torch.save(value, zipped)
    arrays = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(4, "f2")}
    plain = io.BytesIO()
    torch.save(torch.nn.Linear(3, 2), plain)
    return {
        "zip": zipped.getvalue(),
        "whole module": plain.getvalue(),
        "legacy": saved(value),
        "legacy, protocol 4": saved(value, 4),
        "tar": small(),
        "pickled tensors": pickle.dumps({"model": dict(value["model"]), "epoch": 3}, protocol=4),
        "safetensors": safetensors.numpy.save(arrays, metadata={"format": "pt"}),
        "index": b'{"metadata": {"total_size": 9}, "weight_map": {"a": "m-1.bin", "b": "m-2.bin"}}',
    }


def mutant(seed: bytes, rng: random.Random) -> bytes:
    """Return ``seed`` with one to four random injuries."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        if data:
            rng.choice(_INJURIES)(data, rng)
    return bytes(data)


def inner_mutant(seed: bytes, rng: random.Random) -> bytes:
    """Return a torch zip whose pickle alone is injured, all sums and lengths right again."""
    with zipfile.ZipFile(io.BytesIO(seed)) as archive:
        records = {
            info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()
        }
    return zipped({**records, "data.pkl": mutant(records["data.pkl"], rng)})


def header_mutant(seed: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file whose header alone is injured, its length right again."""
    end = 8 + int.from_bytes(seed[:8], "little")
    header = mutant(seed[8:end], rng)
    return len(header).to_bytes(8, "little") + header + seed[end:]


def _flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at : at + rng.choice((1, 2, 4, 8))] = rng.randbytes(rng.choice((1, 2, 4, 8)))


def _edge(data: bytearray, rng: random.Random) -> None:
    at, width = rng.randrange(len(data)), rng.choice((1, 2, 4, 8))
    data[at : at + width] = (rng.choice(EDGES) % (1 << 8 * width)).to_bytes(width, "little")


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 40)]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randint(1, 60)]


def _swap(data: bytearray, rng: random.Random) -> None:
    a, b, width = rng.randrange(len(data)), rng.randrange(len(data)), rng.randint(1, 16)
    data[a : a + width], data[b : b + width] = data[b : b + width], data[a : a + width]


def _append(data: bytearray, rng: random.Random) -> None:
    data += rng.randbytes(rng.randint(1, 100))


def _digit(data: bytearray, rng: random.Random) -> None:
    """Change a decimal digit, which is where text formats keep their numbers."""
    places = [at for at, byte in enumerate(data) if 48 <= byte < 58]
    if places:
        data[rng.choice(places)] = rng.choice(b"0123456789-.e")


_INJURIES = (_flip, _flip, _overwrite, _edge, _edge, _cut, _remove, _repeat, _swap, _append, _digit)


def truncations(seed: bytes, count: int) -> Iterator[bytes]:
    """Yield the file cut at ``count`` places from the beginning to the last byte."""
    for index in range(count):
        yield seed[: index * (len(seed) - 1) // max(count - 1, 1)]
