"""How often the weights of simulated logs are recovered, and how fast a text log is read.

python benchmarks/logs.py [simulations] [megabytes]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from ckptools.logs import read
from ckptools.logs.losses import SIMPLE, Equations, recover

LINE = (
    "2026-08-20 19:37:47,887 - mmdet - INFO - Epoch [{epoch}][{iter}/1759]\tlr: 3.003e-04, "
    "eta: 2 days, 13:22:41, time: 2.410, data_time: 0.167, memory: 19422, {terms}, "
    "loss: {total:.4f}, grad_norm: 35.1234\n"
)


def simulated(rng: np.random.Generator) -> tuple[str, Equations, np.ndarray]:
    """Return the kind of a made-up log, its printed figures, and the true weights."""
    kind = str(rng.choice(["many entries", "one or two entries", "dependent terms"]))
    unknowns = int(rng.integers(2, 4))
    entries = int(rng.integers(1, 3)) if kind == "one or two entries" else int(rng.integers(20, 60))
    values = rng.uniform(0.2, 30, size=(entries, unknowns))
    if kind == "dependent terms":
        values[:, -1] = values[:, 0] * rng.choice([0.5, 2.0, 3.0])
    digits = int(rng.integers(2, 5))
    weights = rng.choice(SIMPLE, size=unknowns)
    unit = 10.0**-digits
    equations = Equations(
        tuple("abcd"[:unknowns]),
        np.round(values, digits),
        np.full(values.shape, unit),
        np.round(values @ weights, digits),
        np.full(entries, unit),
    )
    return kind, equations, weights


def judged(equations: Equations, weights: np.ndarray) -> str:
    """Return what the recovery said, and whether that is true."""
    found = recover([equations])
    if found is None:
        return "nothing said"
    right = np.allclose(list(found.weights.values()), weights, rtol=0.02)
    if found.unique:
        return "unique, true" if right else "unique, WRONG"
    return "not unique, truth first" if right else "not unique, another first"


def recovery(count: int) -> None:
    """Print what was said about ``count`` simulated logs, by kind."""
    rng = np.random.default_rng(20260207)
    tally: Counter[tuple[str, str]] = Counter()
    for _ in range(count):
        kind, equations, weights = simulated(rng)
        tally[kind, judged(equations, weights)] += 1
    for (kind, said), number in sorted(tally.items()):
        print(f"{kind:<20} {said:<28} {number}")


def speed(megabytes: int) -> None:
    """Print how fast a text log of that size is read, and the memory at the peak."""
    rng = np.random.default_rng(0)
    names = [f"d{layer}.loss_{term}" for layer in range(6) for term in ("cls", "pts", "dir")]
    block = "".join(
        LINE.format(
            epoch=1 + number // 1000,
            iter=number % 1000,
            terms=", ".join(f"{name}: {value:.4f}" for name, value in zip(names, row, strict=True)),
            total=row.sum(),
        )
        for number, row in enumerate(rng.uniform(0, 40, size=(2000, len(names))))
    ).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.log"
        with path.open("wb") as file:
            for _ in range(megabytes * 1_000_000 // len(block)):
                file.write(block)
        size = path.stat().st_size
        start, cpu = time.perf_counter(), time.process_time()
        log = read(path)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{size / 1e6:.0f} MB, {len(log):,} records: {size / 1e6 / wall:.1f} MB/s of wall time, ")
    print(f"{size / 1e6 / cpu:.1f} MB/s of processor time, peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    arguments = [int(one) for one in sys.argv[1:]]
    recovery(arguments[0] if arguments else 1000)
    speed(arguments[1] if len(arguments) > 1 else 1000)
