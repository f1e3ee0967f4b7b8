"""A folder that payloads would write into, and files examined by a process of their own."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

Endings = dict[str, dict[str, Any]]

#: CPU time of one file, so that a busy machine does not matter
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


@pytest.fixture(scope="session")
def examined_alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Endings]:
    """Examine files by name in a process of their own; the last one that ends is the last told."""

    def run(files: Mapping[str, Callable[[], bytes] | Path]) -> Endings:
        folder = tmp_path_factory.mktemp("alone")
        paths = []
        for index, made in enumerate(files.values()):
            path = made if isinstance(made, Path) else folder / str(index)
            if not isinstance(made, Path):
                path.write_bytes(made())
            paths.append(str(path))
        command = [sys.executable, "-m", "tests.hostile.examining", *paths]
        root = Path(__file__).parents[2]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, preexec_fn=_limit, cwd=root
        ) as process:
            timer = threading.Timer(4 * SECONDS * max(len(paths), 1), process.kill)
            timer.start()
            lines, _ = process.communicate()
            timer.cancel()
        shutil.rmtree(folder)
        return dict(zip(files, map(json.loads, lines.splitlines()), strict=False))

    return run


def assert_bounded(name: str, endings: Endings) -> dict[str, Any]:
    """Check one file's ending against the limits and return it."""
    assert name in endings, f"the process died at {list(endings)[-1:]} or right after it"
    found = endings[name]
    assert found["peak"] < MEMORY_MIB, found
    assert found["seconds"] < SECONDS, found
    return found
