"""Large checkpoints for measurements, written without torch in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ckptools.surgery.encode import encode
from ckptools.surgery.zip_writer import TorchZipWriter
from ckptools.types.tree import Global, Instance, Pairs, Persistent

CLASSES = {"float32": "FloatStorage", "bfloat16": "BFloat16Storage"}
ITEMSIZE = {"float32": 4, "bfloat16": 2}
BLOCK = 1 << 22


class Builder:
    """Tensors to come, and the tree that refers to them."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.sizes: list[tuple[int, float, bool]] = []
        self.scalars: dict[int, float] = {}

    def tensor(self, shape: tuple[int, ...], scale: float, *, squared: bool = False) -> Instance:
        """Return the node of a normal tensor of deviation ``scale``, or of its squares."""
        key, numel = str(len(self.sizes)), prod(shape)
        self.sizes.append((numel, scale, squared))
        strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        kind = Global("torch", CLASSES[self.dtype])
        storage = Persistent(("storage", kind, key, "cpu", numel))
        hooks = Instance(Global("collections", "OrderedDict"), ())
        arguments = (storage, 0, shape, strides, False, hooks)
        return Instance(Global("torch._utils", "_rebuild_tensor_v2"), arguments)

    def scalar(self, value: float) -> Instance:
        """Return the node of a tensor without dimensions, as torch keeps Adam's steps."""
        self.scalars[len(self.sizes)] = value
        return self.tensor((), 0.0)

    def write(self, path: Path, root: Any) -> None:
        """Write the file."""
        with path.open("wb") as file:
            writer = TorchZipWriter(file, path.stem)
            pickle = encode(root)
            writer.add("data.pkl", [pickle], len(pickle))
            writer.add("byteorder", [sys.byteorder.encode()], len(sys.byteorder))
            for key, payload in enumerate(self.payloads()):
                size = self.sizes[key][0] * ITEMSIZE[self.dtype]
                writer.add(f"data/{key}", payload, size)
            writer.add("version", [b"3\n"], 2)
            writer.finish()

    def payloads(self) -> Iterator[Iterator[bytes]]:
        """Yield the bytes of every tensor, in pieces."""
        noise = np.random.default_rng(0).standard_normal(BLOCK, dtype=np.float32)
        for key, (numel, scale, squared) in enumerate(self.sizes):
            if key in self.scalars:
                kind = np.float32 if self.dtype == "float32" else ml_dtypes.bfloat16
                yield iter([np.array(self.scalars[key], kind).tobytes()])
            else:
                yield self._payload(noise, numel, scale, squared)

    def _payload(
        self, noise: np.ndarray, numel: int, scale: float, squared: bool
    ) -> Iterator[bytes]:
        scaled = noise * np.float32(scale)
        values = (np.square(scaled) if squared else scaled).astype(
            np.float32 if self.dtype == "float32" else ml_dtypes.bfloat16
        )
        for start in range(0, numel, BLOCK):
            yield values[: min(BLOCK, numel - start)].tobytes()


def bare(path: Path, *, tensors: int, shape: tuple[int, int], dtype: str = "float32") -> None:
    """Write a state dict of equal matrices in blocks of ten."""
    builder = Builder(dtype)
    names = (f"layers.{i // 10}.part{i % 10}.weight" for i in range(tensors))
    builder.write(path, Pairs([(name, builder.tensor(shape, 0.02)) for name in names]))


MOMENTS = ("exp_avg", "exp_avg_sq")
SCALES = {"weight": 0.02, "exp_avg": 1e-4, "exp_avg_sq": 1e-4}


def training(path: Path, *, blocks: int, width: int, dtype: str = "float32") -> None:
    """Write a transformer's weights with the state of Adam: 12 width² parameters a block."""
    builder = Builder(dtype)

    def tensor(shape: tuple[int, ...], slot: str, _: int) -> Instance:
        return builder.tensor(shape, SCALES[slot], squared=slot == "exp_avg_sq")

    def step() -> Instance:
        return builder.scalar(1000)

    builder.write(path, transformer(tensor, blocks=blocks, width=width, step=step))


def transformer(
    tensor: Callable[[tuple[int, ...], str, int], Instance],
    *,
    blocks: int,
    width: int,
    epoch: int = 3,
    step: Callable[[], Any],
) -> Pairs:
    """Return the tree of a transformer with the state of Adam.

    ``tensor`` gives the node of (shape, slot, index of the parameter), ``step`` that of a step.
    """
    shapes = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.out_proj.weight": (width, width),
        "linear1.weight": (4 * width, width),
        "linear2.weight": (width, 4 * width),
        "norm1.weight": (width,),
    }
    names = [(f"layers.{b}.{name}", shape) for b in range(blocks) for name, shape in shapes.items()]
    weights = [(n, tensor(shape, "weight", index)) for index, (n, shape) in enumerate(names)]
    state = [
        (index, Pairs([("step", step()), *((s, tensor(shape, s, index)) for s in MOMENTS)]))
        for index, (_, shape) in enumerate(names)
    ]
    group = [
        ("lr", 1e-4),
        ("betas", (0.9, 0.999)),
        ("eps", 1e-8),
        ("weight_decay", 0.01),
        ("amsgrad", False),
        ("params", list(range(len(names)))),
    ]
    optimizer = Pairs([("state", Pairs(state)), ("param_groups", [Pairs(group)])])
    parts = [("epoch", epoch), ("model_state_dict", Pairs(weights))]
    return Pairs([*parts, ("optimizer_state_dict", optimizer)])
