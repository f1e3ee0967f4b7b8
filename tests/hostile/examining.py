"""Doing to a file what ``inspect`` does, and telling how it ended.

Run as a program it examines files in a process of its own and prints how each ended as JSON, so
that time and memory can be measured, and limited from outside.
"""

from __future__ import annotations

import gc
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
    """Return the most memory this process held since the last reset."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _reset_peak() -> None:
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def main(paths: list[str]) -> None:
    """Examine files one after the other; print each ending with CPU seconds and peak MiB."""
    for path in paths:
        _reset_peak()
        started = time.process_time()
        ending = asdict(examine(path))
        spent = {"seconds": time.process_time() - started, "peak": _peak_mib()}
        print(json.dumps({**ending, **spent}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
