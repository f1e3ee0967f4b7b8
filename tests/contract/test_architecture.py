"""The rules of the house, asserted over the source text: imports, prints, broad excepts, docs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ckptools"

#: what each part may import, beside itself; see the map in README.md
BASE = {"errors", "registry"}
MAY_IMPORT: dict[str, set[str]] = {"errors": set(), "registry": set()}
MAY_IMPORT["types"] = BASE
MAY_IMPORT["names"] = MAY_IMPORT["sources"] = BASE | {"types"}
MAY_IMPORT["formats"] = MAY_IMPORT["names"] | {"names", "sources"}
MAY_IMPORT["layouts"] = MAY_IMPORT["formats"] | {"formats"}
MAY_IMPORT["stats"] = MAY_IMPORT["layouts"] | {"layouts"}
MAY_IMPORT["compare"] = MAY_IMPORT["logs"] = MAY_IMPORT["stats"] | {"stats"}
MAY_IMPORT["rules"] = MAY_IMPORT["compare"] | {"compare", "logs"}
MAY_IMPORT["surgery"] = MAY_IMPORT["rerun"] = MAY_IMPORT["rules"] | {"rules"}
MAY_IMPORT["report"] = BASE | {"types"}
MAY_IMPORT["workflows"] = MAY_IMPORT["surgery"] | {"surgery", "rerun", "__init__"}
MAY_IMPORT["cli"] = MAY_IMPORT["workflows"] | {"workflows", "report"}
MAY_IMPORT["lanes"] = BASE | {"types"}
#: the demo command runs the bundled example
EXTRA = {"workflows/demo.py": {"lanes"}, "__main__.py": {"cli"}}

#: broad excepts are allowed where a crash must become a report, and nowhere else
BROAD_EXCEPT = {"rules/runner.py", "cli/main.py"}
#: torch runs models; reading never needs it
TORCH_AT_TOP = {"lanes", "rerun"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part(path: Path) -> str:
    return Path(relative(path)).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield node.module or "", node


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_imports_point_one_way(path: Path) -> None:
    own = part(path)
    allowed = MAY_IMPORT.get(own, set(MAY_IMPORT)) | {own} | EXTRA.get(relative(path), set())
    for name, node in imported(ast.parse(path.read_text())):
        pieces = name.split(".")
        if pieces[0] == "ckptools" and len(pieces) > 1:
            assert pieces[1] in allowed, f"line {node.lineno}: {own} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_torch_is_imported_only_where_models_run(path: Path) -> None:
    if part(path) in TORCH_AT_TOP:
        pytest.skip("models run here")
    for node in ast.parse(path.read_text()).body:
        for name, _ in imported(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            assert name.split(".")[0] != "torch", f"line {node.lineno}"


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_no_module_guards_its_imports(path: Path) -> None:
    """A plug-in that fails to import is a loud error, so no import may be caught at top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Try):
            names = [name for name, _ in imported(node)]
            assert not names, f"line {node.lineno}: {names} guarded by try"


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_no_prints_and_no_broad_excepts(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}: print"
        if isinstance(node, ast.ExceptHandler) and relative(path) not in BROAD_EXCEPT:
            caught = ast.unparse(node.type) if node.type else "everything"
            assert caught not in ("everything", "Exception", "BaseException"), (
                f"line {node.lineno}: catches {caught}"
            )


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_nothing_from_a_file_can_be_executed(path: Path) -> None:
    """No unpickler, eval or exec anywhere, and torch.load only where models are trained."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name, _ in imported(node):
                assert name.split(".")[0] not in ("pickle", "_pickle", "marshal", "shelve", "dill")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec"), f"line {node.lineno}"
            if called == "torch.load" and part(path) not in TORCH_AT_TOP:
                pytest.fail(f"line {node.lineno}: torch.load")


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_everything_public_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "module without a docstring"
    for node in public(tree):
        assert ast.get_docstring(node), f"line {node.lineno}: {node.name}"


def public(scope: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """What others may use: not what is private, nor what lies inside of it."""
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def test_every_folder_is_on_the_map() -> None:
    readme = (PACKAGE.parent / "README.md").read_text()
    folders = {path.parent.name for path in modules() if path.name == "__init__.py"} - {"ckptools"}
    top = {name for name in folders if (PACKAGE / name).is_dir()}
    missing = sorted(name for name in top if f"{name}/" not in readme)
    assert not missing, f"README's map lacks {missing}"


def test_starting_up_imports_neither_numpy_nor_torch() -> None:
    import subprocess

    code = (
        "import sys, ckptools, ckptools.cli.main;"
        "print([m for m in ('numpy', 'torch', 'scipy', 'numba') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_resolve() -> None:
    import ckptools

    for name in ckptools.__all__:
        assert getattr(ckptools, name) is not None
