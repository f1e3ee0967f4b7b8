"""The registry: names are unique, folders and entry points are found, failures are loud."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from ckptools.registry import Registry


def make(package: str = "ckptools.types") -> Registry[object]:
    return Registry("thing", package=package, group="ckptools.nothing")


def test_a_registered_member_is_found_by_name() -> None:
    registry = make()
    registry.register("a")(member := object())
    assert registry.get("a") is member
    assert registry.names() == ["a"]
    assert list(registry) == [member]
    assert len(registry) == 1


def test_a_name_is_taken_once() -> None:
    registry = make()
    registry.add("a", 1)
    with pytest.raises(ValueError, match="thing 'a' is registered twice"):
        registry.add("a", 2)


def test_an_unknown_name_lists_the_known() -> None:
    registry = make()
    registry.add("a", 1)
    with pytest.raises(KeyError, match="no thing named 'b'; known: a"):
        registry.get("b")


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "some_plugins"
    (folder / "deeper").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "deeper" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("some_plugins")]:
        del sys.modules[name]


def test_lying_in_the_folder_is_enough(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[int] = make("some_plugins")  # type: ignore[assignment]
    monkeypatch.setattr("builtins.the_registry", registry, raising=False)
    code = "import builtins\nbuiltins.the_registry.add({name!r}, 1)\n"
    (plugins / "one.py").write_text(code.format(name="one"))
    (plugins / "deeper" / "two.py").write_text(code.format(name="two"))
    assert registry.names() == ["one", "two"]


def test_a_plugin_that_fails_to_import_is_loud(plugins: Path) -> None:
    (plugins / "broken.py").write_text("import a_module_that_does_not_exist\n")
    with pytest.raises(ModuleNotFoundError):
        make("some_plugins").names()


def test_entry_points_of_other_packages_are_loaded(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger.py").write_text(
        textwrap.dedent("""
        import builtins
        builtins.the_registry.add("from-elsewhere", 7)
        """)
    )
    metadata = tmp_path / "stranger-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[test.things]\nx = stranger\n")
    registry: Registry[int] = Registry("thing", package="some_plugins", group="test.things")
    monkeypatch.setattr("builtins.the_registry", registry, raising=False)
    assert registry.get("from-elsewhere") == 7
