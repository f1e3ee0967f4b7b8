"""Reading speed beside the disk, beside ``import torch`` and beside a peer, in one run.

    python benchmarks/reading.py FOLDER [--gigabytes 8] [--peer "COMMAND ... {}"]

Writes its files into FOLDER (24 GB at the default size), prints one table and removes them.  The
peer's command gets the 2 GB file's path in place of ``{}``.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from tabulate import tabulate
from timing import Cost, forget, in_turn

HERE = sys.executable
ITEMSIZE = {"float32": 4, "bfloat16": 2}
Row = tuple[str, str, float, float, str, str]


def build(kind: str, path: Path, **how: object) -> None:
    """Write a file in a process of its own: what this one holds counts as its children's peak."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in how.items())
    code = f"import files, pathlib; files.{kind}(pathlib.Path({str(path)!r}), {arguments})"
    subprocess.run([HERE, "-c", code], check=True, cwd=Path(__file__).parent)


def ckptools(*words: str) -> list[str]:
    return [HERE, "-m", "ckptools", *words]


def cat(path: Path) -> list[str]:
    return ["sh", "-c", f"cat {shlex.quote(str(path))} > /dev/null"]


def row(what: str, ours: Cost, other: str, theirs: Cost, target: str) -> Row:
    ratio = f"{ours.wall / theirs.wall:.2f} × {other} ({theirs.wall:.2f} s)"
    return what, ratio, ours.wall, ours.cpu, f"{ours.memory:.0f}", target


def starting(folder: Path, runs: int) -> list[Row]:
    """Small files and no files: the cost of starting up."""
    listed, small = folder / "listed.pth", folder / "small.pth"
    build("bare", listed, tensors=1000, shape=(512, 1024))
    build("training", small, blocks=2, width=264)
    bare_python, torch = [HERE, "-c", "pass"], [HERE, "-c", "import torch"]
    one = in_turn(ckptools("inspect", "--list", str(listed)), bare_python, runs=runs)
    two = in_turn(ckptools("--help"), bare_python, runs=runs)
    three = in_turn(ckptools("inspect", str(small)), torch, runs=runs)
    listed.unlink()
    return [
        row("--list, 2 GiB, 1000 tensors", *_pair(one, "python -c pass"), "0.3 s, 60 MB"),
        row("--help", *_pair(two, "python -c pass"), "0.15 s CPU"),
        row(
            f"inspect, {small.stat().st_size / 1e6:.0f} MB",
            *_pair(three, "import torch"),
            "0.5 × import torch",
        ),
    ]


def _pair(costs: list[Cost], other: str) -> tuple[Cost, str, Cost]:
    return costs[0], other, costs[1]


def large(folder: Path, dtype: str, gigabytes: float, runs: int) -> list[Row]:
    """One large training checkpoint, warm and cold, against ``cat``."""
    path = folder / f"large_{dtype}.pth"
    width = 2048
    per_block = 12 * width * width * 3 * ITEMSIZE[dtype]
    blocks = round(gigabytes * 1e9 / per_block)
    build("training", path, blocks=blocks, width=width, dtype=dtype)
    inspect = ckptools("inspect", str(path))
    warm = in_turn(inspect, cat(path), runs=runs)
    rows = [
        row(
            f"inspect, {path.stat().st_size / 1e9:.1f} GB {dtype}, warm",
            *_pair(warm, "cat"),
            f"{2.5 if dtype == 'float32' else 4} × cat + 1 s, 500 MB",
        )
    ]
    if dtype == "float32":
        cold = in_turn(
            inspect, cat(path), runs=max(runs // 2, 1), before=partial(forget, str(path))
        )
        rows.append(row("the same, cold", *_pair(cold, "cat"), "1.2 × cat + 1 s"))
    path.unlink()
    return rows


def peer(folder: Path, command: str, dtype: str, runs: int) -> list[Row]:
    """A bare 2 GB state dict, which peers can open, by CPU time."""
    path = folder / "peer.pth"
    side = 2048
    build(
        "bare", path, tensors=round(2e9 / side**2 / ITEMSIZE[dtype]), shape=(side,) * 2, dtype=dtype
    )
    words = [word.replace("{}", str(path)) for word in shlex.split(command)]
    ours, theirs = in_turn(ckptools("inspect", str(path)), words, runs=runs)
    path.unlink()
    ratio = f"{theirs.cpu / ours.cpu:.1f} × less CPU than {words[0]} ({theirs.cpu:.1f} s)"
    what = f"inspect, 2 GB of {dtype} weights"
    return [(what, ratio, ours.wall, ours.cpu, f"{ours.memory:.0f}", "15 × less CPU")]


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer")
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    needed = (arguments.gigabytes + 3) * 1e9
    if shutil.disk_usage(arguments.folder).free < needed:
        sys.exit(f"{arguments.folder} has less than {needed / 1e9:.0f} GB free")
    rows = starting(arguments.folder, arguments.runs)
    for dtype in ("float32", "bfloat16"):
        rows += large(arguments.folder, dtype, arguments.gigabytes, max(arguments.runs // 2, 1))
    if arguments.peer:
        for dtype in ITEMSIZE:
            rows += peer(arguments.folder, arguments.peer, dtype, max(arguments.runs // 2, 1))
    titles = ("what", "wall ratio", "wall s", "CPU s", "peak MB", "aim")
    print(tabulate(rows, titles, tablefmt="github", floatfmt=".2f"))


if __name__ == "__main__":
    main()
