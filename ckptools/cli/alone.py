"""What a command may spare that has the process for itself."""

from __future__ import annotations

import os


def without_linear_algebra() -> None:
    """Spare the loading of what only spectra need: BLAS's spinning threads, and scipy's BLAS."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy reads it when it is imported
    from ckptools.stats import kernel

    kernel.alone = True
