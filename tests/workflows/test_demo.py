from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptools.errors import CkptoolsError, InvalidParameter, WouldOverwrite
from ckptools.lanes import train as lanes_train
from ckptools.report import render
from ckptools.types.blocks import FindingList, Heading, Paragraph, Table
from ckptools.workflows.demo import Demonstration, demo
from tests.conftest import LANES_EPOCHS

Told = dict[str, tuple[Demonstration, list[str]]]


@pytest.fixture(scope="module")
def told(lanes_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The demo of four faults; its training copies the session's run instead of repeating it."""

    def copy(folder: Path, *, epochs: int, **settings: object) -> Path:
        assert epochs == LANES_EPOCHS
        assert settings["size"] == "small"
        folder.mkdir(exist_ok=True)
        for file in lanes_run.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder / f"checkpoint_epoch_{epochs}.pth"

    found: Told = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes_train, "train", copy)
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
        for fault in ("scaled-layer", "second-moments-shrunk", "bit-3", "cut"):
            folder = None if fault == "cut" else tmp_path_factory.mktemp("demo") / fault
            said: list[str] = []
            found[fault] = (
                demo(folder, epochs=LANES_EPOCHS, fault=fault, talk=said.append),
                said,
            )
        yield found


def texts(result: Demonstration) -> str:
    return "\n".join(
        block.text for block in result.view() if isinstance(block, (Heading, Paragraph))
    )


def test_the_planted_fault_is_found_and_nothing_in_the_healthy_file(told: Told) -> None:
    result, said = told["scaled-layer"]
    assert [one.severity for one in result.before.findings if one.severity != "note"] == []
    assert result.target.startswith("decoder.layers.")
    assert result.target in {one.target for one in result.named}
    assert result.exit_code == 0
    assert result.judged is not None
    assert result.judged["loss"] > 1.1 * result.epochs[-1]["loss"]
    assert len(said) == 4


def test_the_story_goes_on_to_the_verdict_and_the_cure(told: Told) -> None:
    result, _ = told["scaled-layer"]
    assert result.series.onset is not None
    assert result.series.onset["epoch"] == LANES_EPOCHS
    assert result.series.last_good is not None
    assert result.series.last_good["path"] == str(result.earlier)
    assert not isinstance(result.experiment, CkptoolsError)
    assert result.experiment.verdict.decision == "supported"
    assert result.experiment.verdict.module == result.target
    assert result.cure is not None
    assert result.cure.operation == "transplant"
    assert result.judged is not None
    assert result.recovered is not None
    assert result.recovered["loss"] < 1.1 * result.judged_before["loss"] < result.judged["loss"]
    assert result.recovered["mAP"] > result.judged["mAP"]
    assert Path(result.cure.output["path"]).exists()


def test_a_sick_optimizer_state_is_reset(told: Told) -> None:
    result, _ = told["second-moments-shrunk"]
    assert result.named
    assert result.cure is not None
    assert result.cure.operation == "reset-optimizer"
    assert "optimizer-reset" in texts(result)


def test_the_page_tells_the_story_with_commands_to_type(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _ = told["scaled-layer"]
    monkeypatch.chdir(result.folder.parent)
    page = texts(result)
    sick = "scaled-layer/checkpoint_epoch_3"
    assert f"ckptools inspect --spectrum {sick}.pth" in page
    assert "ckptools timeline scaled-layer" in page
    assert f"ckptools rerun {sick}.pth --earlier scaled-layer/checkpoint_epoch_2.pth" in page
    assert f"ckptools transplant {sick}.pth --module {result.target} --from" in page
    assert f"ckptools undo {sick}.transplant.receipt.json" in page
    assert f"ckptools explain {result.named[0].code}" in page
    assert Path(f"{sick}.transplant.receipt.json").exists()
    assert Path("scaled-layer/healthy/checkpoint_epoch_3.pth").exists()
    tables = [block for block in result.view() if isinstance(block, Table)]
    assert [len(one.rows) for one in tables] == [LANES_EPOCHS + 1, 3]
    assert len(result.rows()) == LANES_EPOCHS + 3
    assert any(isinstance(block, FindingList) for block in result.view())
    for medium in ("table", "markdown"):
        assert result.target in render(result, medium)


def test_document_is_plain_json(told: Told) -> None:
    document = json.loads(render(told["scaled-layer"][0], "json"))
    assert document["schema"] == "ckptools.demo/1"
    assert document["fault"] == "scaled-layer"
    assert document["named"] is True
    schemas = {name: part and part["schema"] for name, part in document["parts"].items()}
    assert schemas == {
        "before": "ckptools.inspect/1",
        "after": "ckptools.inspect/1",
        "timeline": "ckptools.timeline/1",
        "rerun": "ckptools.verdict/1",
        "receipt": "ckptools.receipt/1",
    }
    assert {"tool", "findings", "crashed", "skipped", "not_judged", "exit_code"} <= set(document)


def test_a_fault_that_one_file_cannot_show_is_admitted(told: Told) -> None:
    result, _ = told["bit-3"]
    assert result.findings == ()
    assert "not found" in texts(result)
    assert result.cure is None
    assert "nothing that surgery could mend" in texts(result)
    assert result.exit_code == 0


def test_a_cut_file_is_inspected_too(told: Told) -> None:
    result, _ = told["cut"]
    assert result.judged is None
    assert result.findings
    assert isinstance(result.experiment, CkptoolsError)
    assert result.document()["parts"]["rerun"] is None
    assert "can no longer be loaded" in texts(result)
    assert "no experiment" in texts(result)


def test_without_a_folder_a_temporary_one_is_made(told: Told) -> None:
    result, _ = told["cut"]
    assert result.folder.name.startswith("ckptools-demo-")
    assert result.damaged.exists()


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
    with pytest.raises(InvalidParameter, match="1 epochs"):
        demo(tmp_path / "new", epochs=1)
    assert not (tmp_path / "new").exists()
