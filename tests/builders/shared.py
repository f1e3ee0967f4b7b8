"""Files of the neighbouring data folder, which not every machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("CKPTOOLS_SHARED", Path(__file__).parents[3] / "shared"))


def shared(relative: str) -> Path:
    """Return the path of a file of the data folder; skip the test where it is missing."""
    path = ROOT / relative
    if not path.exists():
        pytest.skip(f"needs the data folder beside the project ({relative})")
    return path
