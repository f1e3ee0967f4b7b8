"""The measuring pass beside reading alone, numpy in separate passes and torch in chunks.

    python benchmarks/kernel.py FOLDER [--gigabytes 2] [--runs 3]

Writes a training checkpoint (weights and Adam) of float32 and one of bfloat16 into FOLDER, runs
every way over each in turn, several times, prints the medians as one table, and removes the files.
What is compared is the work on warm values alone; processes as a whole are in ``reading.py``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import files
import ml_dtypes
import numpy as np
import torch
from tabulate import tabulate

from ckptools import layouts
from ckptools.sources.arrays import iter_chunks
from ckptools.stats import kernel, measure
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.tensor import TensorRef

CHUNK = 1 << 18


def references(checkpoint: Checkpoint) -> Iterator[TensorRef]:
    """Yield every tensor that the pass measures."""
    for tensor in checkpoint.tensors():
        yield tensor.ref
    for optimizer in checkpoint.optimizers:
        for state in optimizer.states:
            yield from state.slots.values()


def read(checkpoint: Checkpoint) -> None:
    """Read every byte into one buffer, and do nothing with it."""
    buffer = memoryview(bytearray(1 << 20))
    for ref in references(checkpoint):
        storage = ref.storage
        assert storage is not None
        for start in range(0, ref.nbytes, len(buffer)):
            part = buffer[: min(len(buffer), ref.nbytes - start)]
            storage.source.readinto_at(storage.start + start, part)


def separate_passes(checkpoint: Checkpoint) -> None:
    """Take numpy's own functions, one after the other, over each chunk."""
    for ref in references(checkpoint):
        for chunk in iter_chunks(ref, CHUNK):
            wide = chunk.astype(np.float32) if chunk.dtype == ml_dtypes.bfloat16 else chunk
            wide.mean(dtype=np.float64), wide.std(dtype=np.float64)
            wide.min(), wide.max(), np.abs(wide).max()
            np.count_nonzero(wide), np.isnan(wide).sum(), np.isinf(wide).sum()
            np.linalg.norm(wide)


def torch_chunks(checkpoint: Checkpoint) -> None:
    """Take torch's functions over each chunk: fewer statistics, and no histogram."""
    torch.set_num_threads(1)
    for ref in references(checkpoint):
        for chunk in iter_chunks(ref, CHUNK):
            if chunk.dtype == ml_dtypes.bfloat16:
                values = torch.from_numpy(chunk.view(np.int16)).view(torch.bfloat16).float()
            else:
                values = torch.from_numpy(chunk)
            values.aminmax(), values.isfinite().all(), values.count_nonzero()
            centred = values - values.mean()
            square = centred * centred
            square.sum(), square.dot(centred), square.dot(square), values.dot(values)


def ours(threads: int, *, compiled: bool) -> Callable[[Checkpoint], None]:
    """Return our pass with the engine asked for."""

    def run(checkpoint: Checkpoint) -> None:
        kernel.LOADED_ABOVE = kernel.COMPILED_ABOVE = 0 if compiled else 1 << 60
        found = measure(checkpoint, threads=threads)
        assert not found.remarks, found.remarks

    return run


WAYS: dict[str, Callable[[Checkpoint], Any]] = {
    "cat": lambda checkpoint: subprocess.run(
        ["cat", checkpoint.path], stdout=subprocess.DEVNULL, check=True
    ),
    "read into a buffer": read,
    "the pass, compiled, 1 thread": ours(1, compiled=True),
    "the pass, compiled, 2 threads": ours(2, compiled=True),
    "the pass, numpy, 1 thread": ours(1, compiled=False),
    "numpy, a pass per statistic": separate_passes,
    "torch, 1 thread": torch_chunks,
}


def medians(checkpoint: Checkpoint, runs: int) -> dict[str, tuple[float, float]]:
    """Return median wall and CPU seconds of every way, measured in turn."""
    ours(1, compiled=True)(checkpoint)  # load what is compiled
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(runs):
        for name, way in WAYS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way(checkpoint)
            found[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(w for w, _ in costs), statistics.median(c for _, c in costs))
        for name, costs in found.items()
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(arguments.folder).free < (arguments.gigabytes + 1) * 1e9:
        sys.exit(f"{arguments.folder} has less than {arguments.gigabytes + 1} GB free")
    rows = []
    for dtype in ("float32", "bfloat16"):
        path = arguments.folder / f"kernel_{dtype}.pth"
        per_block = 12 * 1024 * 1024 * 3 * files.ITEMSIZE[dtype]
        blocks = round(arguments.gigabytes * 1e9 / per_block)
        files.training(path, blocks=blocks, width=1024, dtype=dtype)
        size = path.stat().st_size / 1e9
        costs = medians(layouts.open(path), arguments.runs)
        path.unlink()
        cat = costs["cat"][0]
        rows += [
            (dtype, name, wall, cpu, size / wall, size / cpu if cpu > 0.01 else None, wall / cat)
            for name, (wall, cpu) in costs.items()
        ]
    titles = ("dtype", "way", "wall s", "CPU s", "GB/s", "GB per CPU s", "× cat")
    print(tabulate(rows, titles, tablefmt="github", floatfmt=".2f"))


if __name__ == "__main__":
    main()
