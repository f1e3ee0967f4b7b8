"""Where machine code is kept, how it is loaded, and what happens when it can be kept nowhere."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import carray

from ckptools.stats import building, machine
from ckptools.stats.machine import Kernel

ROOT = Path(__file__).parents[2]


def test_the_users_own_folder_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere/else")
    assert machine.cache_folder() == Path("/somewhere/else")


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
    assert machine.cache_folder() == Path(expected)


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


HASH = (np.arange(4, dtype=np.uint64), 4, *(np.ones(2, np.uint64),) * 2, 2)


def hashed() -> list[list[int]]:
    """Run one kernel, loaded anew."""
    leaves = np.zeros((2, 2), np.uint64)
    Kernel("ckptools.stats.kernels", "hash_leaves")(*HASH, leaves)
    return leaves.tolist()


def test_what_was_compiled_is_loaded_without_numba(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    found = hashed()
    assert [path.suffix for path in tmp_path.iterdir()] == [".o"]

    def forbidden(*_: object) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(building, "build", forbidden)
    assert hashed() == found
    script = (
        "import sys; sys.path.insert(0, '.'); from tests.stats.test_machine import HASH\n"
        "import numpy as np; from ckptools.stats.machine import Kernel\n"
        "for name in [n for n in sys.modules if n.partition('.')[0] == 'numba']: "
        "del sys.modules[name]\n"
        "Kernel('ckptools.stats.kernels', 'hash_leaves').prepare(*HASH, np.zeros((2, 2), 'u8'))\n"
        "print('numba' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["False"]


@pytest.mark.parametrize("damage", ["short", "changed", "empty"])
def test_damaged_machine_code_is_compiled_again_and_never_run(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    found = hashed()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    broken = {"short": whole[:-9], "changed": whole[:-9] + b"x" + whole[-8:], "empty": b""}
    path.write_bytes(broken[damage])
    assert hashed() == found
    assert path.read_bytes()[32:40] == whole[32:40]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners here")
def test_machine_code_of_another_user_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    hashed()
    (path,) = tmp_path.iterdir()
    assert machine._read(path) is not None
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    assert machine._read(path) is None


def test_other_sources_are_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    hashed()
    monkeypatch.setattr(machine, "_source", lambda module: module.encode())
    hashed()
    assert len(list(tmp_path.iterdir())) == 2


def needs_python(values, size):  # type: ignore[no-untyped-def]
    """Allocate, which takes numba's own memory."""
    found = carray(values, size)
    found[0] = np.cumsum(found)[-1]


def test_code_that_does_not_stand_alone_is_refused() -> None:
    with pytest.raises(RuntimeError, match="NRT"):
        building.build(needs_python, ("*f8", "i8"), "needs_python", machine._machine().target)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64, np.float32, np.float64])
def test_types_of_arguments(kind: type) -> None:
    name = np.dtype(kind).str[1:]
    types, passed = machine._taken((np.zeros(3, kind), kind(3), 3, True, 0.5))
    assert types == ("*" + name, name, "i8", "i8", "f8")
    assert passed[1:] == [3, 3, True, 0.5]


def test_pointers_point_to_the_elements() -> None:
    whole = np.arange(9.0)
    fixed = whole[3:].copy()
    fixed.flags.writeable = False
    _, (direct, asked, nothing) = machine._taken((whole[2:], fixed, whole[:0]))
    assert ctypes.cast(direct, ctypes.POINTER(ctypes.c_double))[1] == 3.0
    assert asked == fixed.ctypes.data
    assert isinstance(nothing, int)
