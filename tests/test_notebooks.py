"""Notebooks are short, executed, and show pictures where they are read; `.ci/run` executes them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the notebook's cells, all or of one kind."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if kind in (None, cell["cell_type"])]


def outputs(path: Path) -> list[dict[str, Any]]:
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


def test_there_are_notebooks_numbered_without_gaps() -> None:
    numbers = [int(path.name.partition("_")[0]) for path in NOTEBOOKS]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_from_question_to_answer_in_fifteen_cells(notebook: Path) -> None:
    assert len(cells(notebook)) <= 15
    texts = ["".join(cell["source"]) for cell in cells(notebook, "markdown")]
    assert texts[0].startswith("# ")
    assert "?" in texts[0]
    assert "## Answer" in texts[-1]


def test_every_cell_was_executed_in_order_and_without_error(notebook: Path) -> None:
    code = cells(notebook, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(output["output_type"] != "error" for output in outputs(notebook))
    assert all(output.get("name") != "stderr" for output in outputs(notebook))


def test_pictures_are_embedded(notebook: Path) -> None:
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert notebook.stat().st_size < 1_000_000


def test_code_is_python_and_names_no_place_of_its_author(notebook: Path) -> None:
    for cell in cells(notebook, "code"):
        ast.parse("".join(cell["source"]))
    text = notebook.read_text(encoding="utf-8")
    assert not any(place in text for place in ("/home/", "/root/", "/tmp/", "C:\\\\Users"))
