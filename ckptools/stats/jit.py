"""Compile a function once and keep the machine code where it can be written.

That is ``NUMBA_CACHE_DIR``, else a folder of ours below the user's cache folder.  Where neither can
be written the import of this module fails with OSError: compiling anew in every process would
cost more than it saves.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import njit

Function = Callable[..., Any]

#: sums may be reordered and contracted; NaN and infinities keep their meaning
_REORDER = {"reassoc", "contract", "nsz"}


def cache_folder() -> Path:
    """Return where machine code is kept: NUMBA_CACHE_DIR, else below the user's cache folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ckptools" / "numba"


def _writable(folder: Path) -> Path:
    """Return ``folder``, made if need be; OSError where nothing can be written into it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


_FOLDER = str(_writable(cache_folder()))


def jit(reorder: bool) -> Callable[[Function], Function]:
    """Return a decorator that compiles without the GIL and caches in our folder.

    numba reads the folder from its global configuration when it decorates; ours is set for that
    moment only, so that other users of numba in this process keep theirs.
    """

    def decorate(function: Function) -> Function:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = _FOLDER
        try:
            made: Function = njit(
                nogil=True,
                cache=True,
                error_model="numpy",
                fastmath=_REORDER if reorder else False,
            )(function)
        finally:
            numba.config.CACHE_DIR = before
        return made

    return decorate
