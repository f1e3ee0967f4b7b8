from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckptools.cli import main as cli
from ckptools.errors import NoSuchTensor, SettingsError
from ckptools.report import media, render
from ckptools.rerun.arms import ArmPlan
from ckptools.rerun.design import Design
from ckptools.rerun.trials import Experiment
from ckptools.workflows.arms import Comparison, compare_arms
from ckptools.workflows.rerun import rerun
from tests.builders.rerun_tasks import regression

PLANS = (
    ArmPlan("as-is"),
    ArmPlan("last layer", loss_weights="last 1"),
    ArmPlan("wild", lr="x1e30"),
    ArmPlan("restore", restore=("heads.0",)),
    ArmPlan("fresh", optimizer="reset"),
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    spec, earlier, later = regression(tmp_path_factory.mktemp("run"))
    return Experiment(spec, str(later), str(earlier))


@pytest.fixture(scope="module")
def compared(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    store = tmp_path_factory.mktemp("trials")
    return compare_arms(experiment, Design(PLANS, 4, (0, 1)), engine="here", store=store)


def test_arms_are_compared_with_the_first_on_unweighted_losses(compared: Comparison) -> None:
    rows = {row["arm"]: row for row in compared.rows()}
    assert rows["as-is"]["change"] is None
    assert set(rows["last layer"]) >= {"loss", "change", "interval", "clipped", "gradient_norm"}
    low, high = rows["restore"]["interval"]
    assert low <= rows["restore"]["change"] <= high
    assert [row["term"] for row in compared.terms()] == ["fit.0", "fit.1"]
    assert all(isinstance(row["restore"], float) for row in compared.terms())


def test_an_arm_without_a_number_is_a_row_not_a_crash(compared: Comparison) -> None:
    (wild,) = (row for row in compared.rows() if row["arm"] == "wild")
    assert wild["no_number"] == 2
    assert wild["loss"] is None
    assert any("ended without a number" in note for note in compared.notes)


def test_what_the_numbers_cannot_say_is_said(compared: Comparison) -> None:
    notes = " ".join(compared.notes)
    assert "only the difference to a sham" in notes
    assert "a fresh optimizer state can help a healthy checkpoint" in notes
    assert "with 2 seeds a difference is told from chance in four cases of five" in notes


def test_a_recipe_is_an_arm(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "halve.toml").write_text(
        '[[step]]\noperation = "rescale"\nmodule = "heads.1"\nfactor = 0.5\n'
    )
    plans = (ArmPlan("as-is"), ArmPlan("halved", recipe=str(tmp_path / "halve.toml")))
    found = compare_arms(experiment, Design(plans, 0, (0,)), engine="here", store=tmp_path / "s")
    by_arm = {row["arm"]: row["loss"] for row in found.rows()}
    assert by_arm["halved"] != by_arm["as-is"]
    assert found.arms[1].settings["recipe"] == str(tmp_path / "halve.toml")
    assert [path.suffix for path in (tmp_path / "s").iterdir()] == [".json"] * 2
    assert not any("told from chance" in note for note in found.notes)  # nothing was trained


def test_what_cannot_be_made_is_refused_before_any_training(
    experiment: Experiment, tmp_path: Path
) -> None:
    with pytest.raises(NoSuchTensor):
        plans = (ArmPlan("as-is"), ArmPlan("x", restore=("nowhere",)))
        compare_arms(experiment, Design(plans), engine="here", store=tmp_path / "s")
    with pytest.raises(SettingsError, match="no engine 'cloud'"):
        compare_arms(experiment, Design(), engine="cloud")
    assert not (tmp_path / "s").exists()


def test_a_design_that_cannot_decide_costs_nothing(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckptools.rerun.task.load_task", None)  # nothing is even loaded
    with pytest.raises(SettingsError, match=r"cannot decide.*at least 2 seeds"):
        rerun(experiment.checkpoint, experiment.task, design=Design(PLANS[:2], 2, (0,)))
    with pytest.raises(SettingsError, match="cannot decide"):
        compare_arms(experiment, Design(PLANS, 2, (0,)), store=tmp_path)


def test_a_rerun_with_a_design_shows_both_in_every_medium(
    experiment: Experiment, tmp_path: Path
) -> None:
    found = rerun(
        experiment.checkpoint,
        experiment.task,
        earlier=experiment.earlier,
        design=Design(PLANS[:2], 2, (0, 1)),
        engine="here",
        trials=tmp_path,
        threads=1,
    )
    document = json.loads(render(found, "json"))
    assert document["comparison"]["reference"] == "as-is"
    assert {"as-is", "last layer"} <= {arm["name"] for arm in document["arms"]}
    for medium in media.names():
        assert render(found, medium)
    assert "last layer" in render(found, "table")


def test_the_command_line_runs_plans(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plans.toml").write_text("steps = 2\nseeds = [0, 1]\n[[arm]]\nlr = 'x0.1'\n")
    asked = ["rerun", experiment.checkpoint, "--task", experiment.task, "--format", "json"]
    asked += ["--earlier", str(experiment.earlier), "--arms", str(tmp_path / "plans.toml")]
    asked += ["--arm", "optimizer-reset", "--engine", "here", "--trials", str(tmp_path / "t")]
    code = cli.run(asked)
    document = json.loads(capsys.readouterr().out)
    assert code == document["exit_code"]
    assert [row["arm"] for row in document["comparison"]["arms"]] == [
        "as-is",
        "lr=x0.1",
        "optimizer-reset",
    ]
    assert document["comparison"]["kept"] == 0
    cli.run(asked)
    assert json.loads(capsys.readouterr().out)["comparison"]["kept"] == 6


def test_the_command_line_says_what_is_missing(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ["--task", experiment.task]
    for asked, said in (
        (["rerun", *task], "CHECKPOINT"),
        (["rerun", experiment.checkpoint, *task, "--steps", "3"], "--arm"),
        (["rerun", experiment.checkpoint, *task, "--device", "nowhere"], "nowhere"),
        (["rerun", experiment.checkpoint, *task, "--arm", "faster"], "no arm 'faster'"),
        (["rerun", experiment.checkpoint, *task, "--set", "lr"], "NAME=VALUE"),
        (["rerun", experiment.checkpoint, *task, "--engine", "cloud"], "no engine 'cloud'"),
        (
            ["rerun", experiment.checkpoint, *task, "--arm", "optimizer-reset", "--seeds", "1"],
            "give at least 2 seeds",
        ),
    ):
        assert cli.run(asked) == 2
        assert said in capsys.readouterr().err


def test_bisect_is_asked_for_without_a_checkpoint(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(Path(experiment.checkpoint).parent)
    assert cli.run(["rerun", "--bisect", folder, "--task", experiment.task, "-q"]) == 0
    assert "worse" not in capsys.readouterr().err
