"""Comparing checkpoints beside reading them: ``diff`` of two large files, ``timeline`` of many.

    python benchmarks/comparing.py FOLDER [--gigabytes 2] [--epochs 0] [--megabytes 500]

Writes two training checkpoints of one Adam history into FOLDER (and as many smaller epochs as
asked for), prints wall time, CPU time and memory beside ``cat``, and removes the files.  The
moments are those of a simulated history, so that every bound is computed and none is violated.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from files import Builder, transformer
from tabulate import tabulate
from timing import in_turn, median, run

HERE = sys.executable
BLOCK = 1 << 20
BETAS, EPS, RATE, DECAY = (0.9, 0.999), 1e-8, 1e-4, 0.01


class History:
    """Adam on a block of elements with gradients drawn anew in every step."""

    def __init__(self, size: int = BLOCK, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.w = self.rng.standard_normal(size, dtype=np.float32) * np.float32(0.02)
        self.pull = self.rng.standard_normal(size, dtype=np.float32) * np.float32(2e-4)
        self.m, self.v = np.zeros_like(self.w), np.zeros_like(self.w)
        self.step = 0

    def advance(self, steps: int) -> None:
        """Take some steps."""
        first, second = BETAS
        for _ in range(steps):
            self.step += 1
            g = self.rng.standard_normal(self.w.size, dtype=np.float32) * np.float32(1e-3)
            g += self.pull
            self.m += (g - self.m) * np.float32(1 - first)
            self.v *= np.float32(second)
            self.v += g * g * np.float32(1 - second)
            scale = RATE / (1 - first**self.step)
            root = np.sqrt(self.v) / np.float32(np.sqrt(1 - second**self.step)) + np.float32(EPS)
            self.w *= np.float32(1 - RATE * DECAY)
            self.w -= np.float32(scale) * self.m / root


class Snapshot(Builder):
    """A file whose tensors are stretches of the history's block, each from another place."""

    def __init__(self, history: History) -> None:
        super().__init__("float32")
        self.held = {"weight": history.w, "exp_avg": history.m, "exp_avg_sq": history.v}
        self.places: list[tuple[str, int]] = []

    def slot(self, shape: tuple[int, ...], name: str, index: int) -> Any:
        """Return the node of a weight or slot of one parameter."""
        self.places.append((name, index * 7919 % BLOCK))
        return self.tensor(shape, 1.0)

    def payloads(self) -> Iterator[Iterator[bytes]]:
        """Yield the bytes of every tensor, in pieces."""
        for (numel, _, _), (name, place) in zip(self.sizes, self.places, strict=True):
            values = np.roll(self.held[name], -place)
            twice = np.concatenate([values, values])  # moved along, so that no row comes again
            cuts = [(start // BLOCK, min(BLOCK, numel - start)) for start in range(0, numel, BLOCK)]
            yield (twice[shift : shift + size].tobytes() for shift, size in cuts)


def write(path: Path, history: History, epoch: int, *, blocks: int, width: int) -> None:
    """Write the checkpoint of an epoch."""
    builder = Snapshot(history)
    tree = transformer(
        builder.slot, blocks=blocks, width=width, step=lambda: history.step, epoch=epoch
    )
    builder.write(path, tree)


def cat(paths: list[Path]) -> list[str]:
    return ["sh", "-c", f"cat {' '.join(shlex.quote(str(path)) for path in paths)} > /dev/null"]


def ckptools(*words: object) -> list[str]:
    return [HERE, "-m", "ckptools", *map(str, words)]


def build(folder: Path, megabytes: float, epochs: int, width: int) -> list[Path]:
    """Write the epochs in a process of its own: what this one holds would count as the child's."""
    code = (
        f"import comparing, pathlib; comparing.series(pathlib.Path({str(folder)!r}), "
        f"{megabytes}, {epochs}, {width})"
    )
    subprocess.run([HERE, "-c", code], check=True, cwd=Path(__file__).parent)
    return sorted(folder.glob("epoch_*.pth"))


def series(folder: Path, megabytes: float, epochs: int, width: int) -> None:
    """Write the epochs of one run, 16 steps apart, the first after 100."""
    blocks = max(1, round(megabytes * 1e6 / (12 * width * width * 3 * 4)))
    history = History()
    history.advance(100)
    for epoch in range(epochs):
        write(folder / f"epoch_{epoch:02d}.pth", history, epoch, blocks=blocks, width=width)
        history.advance(16)


def row(what: str, cost: Any, beside: str) -> list[str]:
    return [what, f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.memory:.0f}", beside]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--megabytes", type=float, default=500.0)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(options.folder / "cache")
    rows = []
    if options.gigabytes:
        pair = build(options.folder, options.gigabytes * 1e3, 2, 2048)
        ours, theirs = in_turn(ckptools("diff", *pair), cat(pair), runs=options.runs)
        aim = f"cat {theirs.wall:.2f} s, so {3 * theirs.wall + 1:.2f} s and 600 MB are the aim"
        rows.append(row(f"diff of two {options.gigabytes:g} GB", ours, aim))
        for path in pair:
            path.unlink()
    if options.epochs:
        files = build(options.folder, options.megabytes, options.epochs, 512)
        command = ckptools("timeline", *files)
        run(ckptools("timeline", "--no-cache", *files[:2]))  # compiles what is not compiled yet
        once = run(cat(files))
        beside = f"reads every file twice; cat once {once.wall:.2f} s"
        what = f"timeline, {options.epochs} × {options.megabytes:g} MB"
        rows.append(row(what, run(command), beside))
        again = median([run(command) for _ in range(options.runs)])
        rows.append(row("the same again", again, "2 s are the aim"))
        for path in files:
            path.unlink()
    print(tabulate(rows, ["", "wall s", "CPU s", "MB", ""], disable_numparse=True))


if __name__ == "__main__":
    main()
