from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckptools.errors import InvalidParameter, WouldOverwrite
from ckptools.lanes import train as lanes_train
from ckptools.report import render
from ckptools.types.blocks import FindingList, Heading, Paragraph, Table
from ckptools.workflows.demo import Demonstration, demo
from tests.conftest import LANES_EPOCHS


@pytest.fixture
def trained(lanes_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demo's training copy the session's run instead of repeating it."""

    def copy(folder: Path, *, epochs: int, **settings: object) -> Path:
        assert epochs == LANES_EPOCHS
        assert settings["size"] == "small"
        folder.mkdir(exist_ok=True)
        for file in lanes_run.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder / f"checkpoint_epoch_{epochs}.pth"

    monkeypatch.setattr(lanes_train, "train", copy)


def texts(result: Demonstration) -> str:
    return "\n".join(
        block.text for block in result.view() if isinstance(block, (Heading, Paragraph))
    )


@pytest.mark.usefixtures("trained")
def test_the_planted_fault_is_found_and_nothing_in_the_healthy_file(tmp_path: Path) -> None:
    said: list[str] = []
    result = demo(tmp_path / "demo", talk=said.append)
    assert [one.severity for one in result.before.findings if one.severity != "note"] == []
    assert result.target.startswith("decoder.layers.")
    assert result.target in {one.target for one in result.named}
    assert result.exit_code == 0
    assert result.judged is not None
    assert result.judged["loss"] > 1.1 * result.epochs[-1]["loss"]
    assert len(said) == 2


@pytest.mark.usefixtures("trained")
def test_the_page_tells_the_story_with_commands_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = demo("demo")
    page = texts(result)
    assert "ckptools inspect --spectrum demo/checkpoint_epoch_3.pth" in page
    assert "ckptools inspect --spectrum demo/checkpoint_epoch_3.scaled-layer.pth" in page
    assert f"ckptools explain {result.named[0].code}" in page
    tables = [block for block in result.view() if isinstance(block, Table)]
    assert len(tables[0].rows) == LANES_EPOCHS + 2
    assert any(isinstance(block, FindingList) for block in result.view())
    for medium in ("table", "markdown"):
        assert result.target in render(result, medium)


@pytest.mark.usefixtures("trained")
def test_document_is_plain_json(tmp_path: Path) -> None:
    result = demo(tmp_path / "demo", fault="nan")
    document = json.loads(render(result, "json"))
    assert document["schema"] == "ckptools.demo/1"
    assert document["fault"] == "nan"
    assert document["named"] is True
    assert document["parts"]["after"]["schema"] == "ckptools.inspect/1"
    assert {"tool", "findings", "crashed", "skipped", "not_judged", "exit_code"} <= set(document)


@pytest.mark.usefixtures("trained")
def test_a_fault_that_one_file_cannot_show_is_admitted(tmp_path: Path) -> None:
    result = demo(tmp_path / "demo", fault="bit-3")
    assert result.findings == ()
    assert "not found" in texts(result)
    assert result.exit_code == 0


@pytest.mark.usefixtures("trained")
def test_a_cut_file_is_inspected_too(tmp_path: Path) -> None:
    result = demo(tmp_path / "demo", fault="cut")
    assert result.judged is None
    assert result.findings
    assert "can no longer be loaded" in texts(result)


def test_a_folder_that_holds_files_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "mine.txt"
    other.write_text("mine")
    with pytest.raises(WouldOverwrite):
        demo(tmp_path)
    with pytest.raises(WouldOverwrite):
        demo(other)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_mistakes_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="scaled-layer"):
        demo(tmp_path / "new", fault="gremlins")
    with pytest.raises(InvalidParameter, match="0 epochs"):
        demo(tmp_path / "new", epochs=0)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("trained")
def test_without_a_folder_a_temporary_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = demo()
    assert result.folder.parent == tmp_path
    assert result.damaged.exists()
