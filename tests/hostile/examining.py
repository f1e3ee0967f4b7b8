"""Doing to a file what ``inspect`` does, and telling how it ended.

Run as a program it examines one file by itself and prints the ending as JSON, so that time and
memory can be limited from outside.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass

from ckptools.errors import CkptoolsError
from ckptools.formats import open_container, verify_checksums
from ckptools.layouts import read_checkpoint
from ckptools.stats import measure


@dataclass(frozen=True)
class Ending:
    """How it ended: an error's class and text, or what the listing says."""

    error: str | None
    message: str = ""
    format: str = ""
    faults: tuple[str, ...] = ()
    grades: tuple[str, ...] = ()
    tensors: int = 0

    @property
    def flagged(self) -> bool:
        """Whether somebody who reads the ending is warned."""
        suspicious = any(grade != "known" for grade in self.grades)
        return self.error is not None or bool(self.faults) or suspicious


def examine(path: str) -> Ending:
    """Open, verify, understand and measure; only our own errors are an ending."""
    try:
        container = open_container(path)
        faults = (*container.faults, *verify_checksums(container))
        checkpoint = read_checkpoint(container)
        measure(checkpoint)
    except CkptoolsError as error:
        return Ending(type(error).__name__, str(error))
    return Ending(
        None,
        format=container.format,
        faults=tuple(fault.kind for fault in faults),
        grades=tuple(use.grade for use in container.globals),
        tensors=sum(1 for _ in checkpoint.tensors()),
    )


def _peak_mib() -> float:
    """Return the most memory this process ever held; rusage would count its parent's, too."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main(path: str) -> None:
    """Examine one file and print the ending, seconds of CPU and the peak of memory in MiB."""
    started = time.perf_counter()
    ending = asdict(examine(path))
    peak = _peak_mib()
    print(json.dumps({**ending, "seconds": time.perf_counter() - started, "peak": peak}))


if __name__ == "__main__":
    main(sys.argv[1])
