"""Whole processes measured in turn: wall time, CPU time and peak memory, medians and ratios."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """One run of a command: seconds, seconds, mebibytes (largest single process)."""

    wall: float
    cpu: float
    memory: float


def run(command: Sequence[str]) -> Cost:
    """Run a command to its end, its output thrown away; exit codes 0 and 1 count as done."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    wall = time.perf_counter() - start
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def median(costs: Sequence[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(
        *(statistics.median(getattr(c, f) for c in costs) for f in ("wall", "cpu", "memory"))
    )


def in_turn(
    *commands: Sequence[str], runs: int = 5, before: Callable[[], None] | None = None
) -> list[Cost]:
    """Measure commands alternately (A B A B ...), so that a drifting machine hits all alike."""
    for command in commands:
        run(command)
    rounds = []
    for _ in range(runs):
        costs = []
        for command in commands:
            if before:
                before()
            costs.append(run(command))
        rounds.append(costs)
    return [median(column) for column in zip(*rounds, strict=True)]


def forget(path: str) -> None:
    """Drop a file's pages from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
