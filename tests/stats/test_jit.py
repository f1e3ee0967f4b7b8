"""Where compiled code is kept, and what happens when it can be kept nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptools.stats import jit

ROOT = Path(__file__).parents[2]


def test_the_users_own_folder_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere/else")
    assert jit.cache_folder() == Path("/somewhere/else")


@pytest.mark.parametrize(
    ("platform", "variable", "value", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "/xdg", "/xdg/ckptools/numba"),
        ("linux", "HOME", "/home/me", "/home/me/.cache/ckptools/numba"),
        ("darwin", "HOME", "/Users/me", "/Users/me/Library/Caches/ckptools/numba"),
        ("win32", "LOCALAPPDATA", "/local", "/local/ckptools/numba"),
    ],
)
def test_the_platforms_cache_folder_is_the_default(
    platform: str, variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, value)
    assert jit.cache_folder() == Path(expected)


def test_without_a_folder_to_write_to_numpy_is_used_and_that_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    script = (
        "from ckptools.stats import kernel\n"
        "chosen, remark = kernel.engine(kernel.COMPILED_ABOVE)\n"
        "print(chosen.__name__, '|', remark)"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        env=os.environ | {"NUMBA_CACHE_DIR": str(blocked / "below")},
        capture_output=True,
        text=True,
        check=True,
    )
    engine, remark = ran.stdout.strip().split(" | ")
    assert engine == "ckptools.stats.plain"
    assert "numpy is used" in remark


def test_the_configuration_of_others_is_left_alone() -> None:
    import numba

    assert str(numba.config.CACHE_DIR) == os.environ.get("NUMBA_CACHE_DIR", "")
