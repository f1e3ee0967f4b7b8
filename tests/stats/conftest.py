from __future__ import annotations

import importlib
from typing import Any

import pytest

from ckptools.stats import jobs, passing


@pytest.fixture(params=["plain", "compiled"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Each engine in turn."""
    return importlib.import_module(f"ckptools.stats.{request.param}")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 64 KiB and runs of 128 KiB, so that small tensors are cut into many."""
    monkeypatch.setattr(passing, "CHUNK", 1 << 16)
    monkeypatch.setattr(jobs, "RUN", 1 << 17)
