"""Importing what the user named: modules, files, neighbours, and what cannot be imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ckptools.sources.user_code import user_module


@pytest.fixture(autouse=True)
def _path_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_module_by_its_name() -> None:
    assert user_module("json.decoder") is sys.modules["json.decoder"]


def test_a_module_beside_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_the_user.py").write_text("VALUE = 3\n")
    monkeypatch.chdir(tmp_path)
    assert user_module("beside_the_user").VALUE == 3
    sys.modules.pop("beside_the_user")


def test_a_file_with_its_neighbours_and_dataclasses(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_it.py").write_text("VALUE = 5\n")
    code = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from neighbour_of_it import VALUE\n"
        "@dataclass\nclass One:\n    value: int = VALUE\n"
    )
    (tmp_path / "users_own_file.py").write_text(code)
    assert user_module(str(tmp_path / "users_own_file.py")).One().value == 5
    for name in ("neighbour_of_it", "users_own_file"):
        sys.modules.pop(name)


def test_a_file_never_takes_the_place_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("VALUE = 7\n")
    import json

    assert user_module(str(tmp_path / "json.py")).VALUE == 7
    assert sys.modules["json"] is json


@pytest.mark.parametrize("code", ["def f(:\n", "import no_such_thing_at_all\n"])
def test_what_cannot_be_imported_is_an_import_error(code: str, tmp_path: Path) -> None:
    (tmp_path / "cannot_be.py").write_text(code)
    with pytest.raises(ImportError, match=r"no_such_thing_at_all|cannot_be\.py, line 1"):
        user_module(str(tmp_path / "cannot_be.py"))
    sys.modules.pop("cannot_be", None)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        user_module(str(tmp_path / "missing.py"))
