"""What a command works on: a checkpoint, or a file of measurements that stands in for one."""

from __future__ import annotations

import os
from pathlib import Path

from ckptools import layouts
from ckptools.errors import OpenError
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.measurements import Measurements


def subject(path: str | Path) -> tuple[Checkpoint, Measurements | None]:
    """Return the checkpoint at ``path``, with its measurements where these were kept instead.

    OpenError when it is neither.
    """
    try:
        return layouts.open(os.fspath(path)), None
    except OpenError:
        if not os.path.isfile(path):  # opening a pipe would wait for a writer
            raise
        from ckptools.stats import measures_file  # needs numpy, which listings do without

        if not measures_file.is_measures_file(path):
            raise
    saved = measures_file.load(path)
    return saved.checkpoint, saved.measurements
