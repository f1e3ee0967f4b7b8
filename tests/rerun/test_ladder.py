from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptools.cli import main as cli
from ckptools.errors import NotComparable, TaskError
from ckptools.lanes import faults
from ckptools.lanes.train import one_thread
from ckptools.report import media, render
from ckptools.types.verdict import RUNGS
from ckptools.workflows.rerun import Rerun, rerun

TASK = "ckptools.lanes.task:Lanes"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On tensors this small more threads are slower."""
    with one_thread():
        yield


def ask(run: Path, fault: str, folder: Path, **options: Any) -> tuple[faults.Planted, Rerun]:
    planted = faults.plant(run / "checkpoint_epoch_3.pth", folder / "sick.pth", fault, seed=1)
    options.setdefault("settings", {"size": "small"})
    earlier = run / "checkpoint_epoch_2.pth"
    return planted, rerun(planted.path, TASK, earlier=earlier, **options)


def test_a_damaged_layer_is_named(lanes_run: Path, tmp_path: Path) -> None:
    planted, found = ask(lanes_run, "scaled-layer", tmp_path, suspects=("projector",))
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "weights")
    assert (found.verdict.module, found.verdict.scope) == (planted.target, "module")
    assert found.exit_code == 1
    scan = found.rungs[-1]
    assert scan.name == "restore-scan"
    assert scan.evaluations <= 20  # of 25 units, and both directions
    assert abs(scan.evidence["suspects"]["projector"]) < 0.2
    assert found.verdict.cleared == ("projector",)
    assert "dynamics" in found.verdict.not_needed
    for medium in media.names():
        assert render(found, medium)


def test_changed_data_are_not_blamed_on_the_weights(lanes_run: Path, tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"  # of a run on data that were easier by half
    records = [json.loads(line) for line in (lanes_run / "train.jsonl").read_text().splitlines()]
    counts = ("epoch", "step")
    eased = [
        {k: v if k in counts or isinstance(v, str) else v / 2 for k, v in one.items()}
        for one in records
    ]
    log.write_text("\n".join(map(json.dumps, eased)))
    settings = {"size": "small", "log": str(log)}
    _, found = ask(lanes_run, "scaled-layer", tmp_path, settings=settings)
    assert found.verdict.cause == "data-or-code"
    assert found.exit_code == 0
    assert [rung.name for rung in found.rungs] == ["environment"]


def test_without_an_earlier_checkpoint_it_stays_open(
    lanes_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(lanes_run / "checkpoint_epoch_3.pth")
    asked = ["rerun", path, "--task", TASK, "--set", "size=small", "--format", "json"]
    assert cli.run(asked) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "ckptools.verdict/1"
    assert found["decision"] == "undecided"
    assert "--earlier" in found["would_decide"]


def test_a_model_of_another_size_is_refused(lanes_run: Path) -> None:
    path = lanes_run / "checkpoint_epoch_3.pth"
    with pytest.raises(NotComparable, match="another shape"):
        rerun(path, TASK)


@pytest.mark.parametrize(
    "task", ["nothing", "no.such.module:Task", "json:JSONDecoder", "ckptools.lanes.task:Nope"]
)
def test_tasks_that_break_the_protocol(lanes_run: Path, task: str) -> None:
    with pytest.raises(TaskError):
        rerun(lanes_run / "checkpoint_epoch_3.pth", task)


def test_a_healthy_checkpoint_is_cleared(lanes_run: Path, tmp_path: Path) -> None:
    _, found = ask(lanes_run, "bit-3", tmp_path)
    assert (found.verdict.decision, found.verdict.cause) == ("refuted", "none")
    assert {arm.name for arm in found.arms} == {"as-is", "earlier"}
    assert [rung.name for rung in found.rungs] == list(RUNGS)
    assert found.verdict.not_needed == ()


def test_optimizer_state_is_blamed_after_a_short_training(lanes_run: Path, tmp_path: Path) -> None:
    _, found = ask(lanes_run, "second-moments-shrunk", tmp_path)
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "optimizer")
    assert found.rungs[-1].name == "dynamics"
    assert len({len(arm.trials) for arm in found.arms}) == 1


def test_all_rungs_are_climbed_on_demand(lanes_run: Path, tmp_path: Path) -> None:
    planted, found = ask(lanes_run, "scaled-layer", tmp_path, all_rungs=True)
    assert found.verdict.module == planted.target
    assert [rung.name for rung in found.rungs] == list(RUNGS)
    assert found.verdict.not_needed == ()
    assert [(one.code, one.target) for one in found.findings][:1] == [("EXP101", planted.target)]
    document = found.document()
    assert document["crashed"] == []
    assert document["explanation"]


def test_alone_a_shrunk_second_moment_is_blamed(lanes_run: Path, tmp_path: Path) -> None:
    source = lanes_run / "checkpoint_epoch_3.pth"
    planted = faults.plant(source, tmp_path / "sick.pth", "second-moments-shrunk", seed=1)
    found = rerun(planted.path, TASK, settings={"size": "small"})
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "optimizer")
    assert {"gap", "restore-scan"}.isdisjoint(rung.name for rung in found.rungs)
    assert any("weights were not compared" in reason for reason in found.not_judged)


def test_other_loss_weights_are_no_damage(lanes_run: Path) -> None:
    found = rerun(
        lanes_run / "checkpoint_epoch_3.pth",
        TASK,
        earlier=lanes_run / "checkpoint_epoch_2.pth",
        settings={"size": "small", "aux_weights": 5.0},
    )
    assert (found.verdict.decision, found.verdict.cause) == ("refuted", "loss-weights")
    assert [one.code for one in found.findings] == ["EXP105"]
