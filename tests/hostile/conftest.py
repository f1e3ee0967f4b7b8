"""A folder that payloads would write into, and files examined by a process of their own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 30
MEMORY_MIB = 1024
#: address space is more than memory: libraries reserve without using
ADDRESS_SPACE = 6 << 30


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change into a folder where every payload can write its marker, and check that none did."""
    folder = tmp_path / "ckptools_marker"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    yield folder
    assert list(folder.iterdir()) == [], "a payload was executed"


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))


@pytest.fixture
def examine_alone() -> Callable[[Path | str], dict[str, Any]]:
    """Examine a file in a process of its own, which must stay within 30 s and 1 GiB."""

    def run(path: Path | str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.hostile.examining", str(path)],
            capture_output=True,
            text=True,
            timeout=4 * SECONDS,
            preexec_fn=_limit,
            cwd=Path(__file__).parents[2],
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["peak"] < MEMORY_MIB, found
        assert found["seconds"] < SECONDS, found
        return found

    return run
