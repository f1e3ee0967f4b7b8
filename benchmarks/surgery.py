"""One module of a 2 GiB checkpoint reset: against cp plus fsync, and against torch.load plus save.

``python -m benchmarks.surgery FOLDER [BLOCKS]``: a block of width 1024 with Adam's state takes
144 MiB.  Medians of processes run in turn; the files are in the page cache and the bytecode is
compiled.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from benchmarks.files import training
from benchmarks.timing import in_turn

COPY = """
import os, shutil, sys
shutil.copyfile(sys.argv[1], sys.argv[2])
with open(sys.argv[2], "rb") as file:
    os.fsync(file.fileno())
"""
TORCH = """
import sys, torch
saved = torch.load(sys.argv[1], weights_only=True)
for name, value in saved["model_state_dict"].items():
    if name.startswith("layers.1.") and value.ndim > 1:
        torch.nn.init.kaiming_uniform_(value)
torch.save(saved, sys.argv[2])
"""


def main(folder: Path, blocks: int, runs: int) -> None:
    """Write the file, measure and print the table."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    source, target = folder / "big.pth", folder / "new.pth"
    training(source, blocks=blocks, width=1024)
    gib = os.path.getsize(source) / 2**30
    paths = [str(source), str(target)]
    reset = [sys.executable, "-m", "ckptools", "reset", paths[0], "-o", paths[1], "-q", "--force"]
    module = ["--module", "layers.1"]
    names = (
        "cp + fsync",
        "reset, values only",
        "reset",
        "reset --verify",
        "drop a block",
        "torch load + save",
    )
    costs = in_turn(
        [sys.executable, "-c", COPY, *paths],
        [*reset, *module, "--optimizer", "keep"],
        [*reset, *module],
        [*reset, *module, "--verify"],
        [*reset[:3], "drop", *reset[4:], *module],
        [sys.executable, "-c", TORCH, *paths],
        runs=runs,
        before=lambda: target.unlink(missing_ok=True),
    )
    print(f"{gib:.2f} GiB, median of {runs}")
    for name, cost in zip(names, costs, strict=True):
        ratio = cost.wall / costs[0].wall
        print(
            f"{name:18} {cost.wall:6.2f} s  {ratio:5.2f} x  cpu {cost.cpu:5.2f} s  "
            f"{cost.memory:6.0f} MiB"
        )
    for path in folder.glob("new.*"):
        path.unlink()
    source.unlink()
    shutil.rmtree(folder / "bytecode", ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 14, 3)
