from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from ckptools.errors import SettingsError, TaskError
from ckptools.rerun.evaluate import evaluate
from ckptools.rerun.machine import Machine, threads
from ckptools.rerun.task import HeldTask, breaks_down, load_task, source_digest
from tests.builders.rerun_tasks import TASK, write_task


@pytest.fixture
def task(tmp_path: Path) -> HeldTask:
    return load_task(f"{write_task(tmp_path)}:Regression")


def test_a_task_knows_its_settings_and_can_be_made_again(task: HeldTask) -> None:
    assert task.known == ("width", "lr", "warmup", "offset", "broken")
    wide = task.again({"width": 16})
    assert wide.build().heads[0].in_features == 16
    assert wide.again({"lr": 0.5}).settings == {"width": 16, "lr": 0.5}
    assert task.modules == ["body.0", "body.2", "heads.0", "heads.1"]
    with pytest.raises(TaskError, match="refuses its settings"):
        task.again({"depth": 2})


def test_the_users_errors_name_their_line(task: HeldTask) -> None:
    broken = task.again({"broken": True})
    with pytest.raises(TaskError, match=r"task\.py:\d+: the task's loss raised ValueError"):
        broken.loss(broken.build(), next(broken.batches(0)))
    with pytest.raises(TaskError, match="evaluate raised ValueError"):
        broken.evaluate(broken.build())


def test_an_evaluation_that_cannot_bear_a_sick_model_gives_nan(task: HeldTask) -> None:
    for harm in (math.nan, 1e30):
        model = task.build()
        with torch.no_grad():
            model.heads[1].weight.fill_(harm)
        if harm == 1e30:  # finite weights, an output beyond what the task bears: its own error
            with torch.no_grad():
                model.heads[1].weight.fill_(3e38)
                model.body[2].weight.fill_(3e38)
        assert math.isnan(evaluate(task, model)["loss"])
        assert breaks_down(model, lambda m=model: task.given.evaluate(m))
    assert not breaks_down(task.build(), lambda: None)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("return Net(self.chosen", "return str(self.chosen", "gives no module"),
        (
            'return torch.optim.AdamW(model.parameters(), lr=self.chosen["lr"])',
            "return 3",
            "no torch optimizer",
        ),
    ],
)
def test_parts_that_give_the_wrong_thing_are_told(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    assert old in TASK
    task = load_task(f"{write_task(tmp_path, TASK.replace(old, new), 'wrong.py')}:Regression")
    with pytest.raises(TaskError, match=complaint):
        task.optimizer(task.build())


def test_terms_must_be_scalars(task: HeldTask, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = task.build(), next(task.batches(0))
    for value, complaint in (({}, "no terms"), ({"a": torch.ones(2)}, "a is a tensor of shape")):
        monkeypatch.setattr(task.given, "loss", lambda m, b, v=value: v)
        with pytest.raises(TaskError, match=complaint):
            task.loss(model, batch)
    monkeypatch.setattr(task.given, "loss", lambda m, b: torch.ones(1))
    assert task.loss(model, batch)["total"].shape == ()


def test_a_task_without_weights_has_ones(task: HeldTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(task.given), "weights", None)
    assert task.weights() == {}


def test_bf16_is_a_precision_of_the_forward_pass(task: HeldTask) -> None:
    half = load_task(task.spec, None, Machine("cpu", "bf16"))
    torch.manual_seed(0)
    model = half.build().eval()
    batch = next(half.batches(0))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact, rough = (one.loss(model, batch)["fit.0"].item() for one in (task, half))
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.1)


def test_a_machine_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot use the device"):
        Machine("cuda:99" if torch.cuda.is_available() else "cuda")
    with pytest.raises(SettingsError, match="one of: bf16, fp16"):
        Machine("cpu", "fp4")
    described = Machine().describe()
    assert described["device"] == "cpu"
    assert described["torch"] == str(torch.__version__)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_the_digest_of_the_code_changes_with_its_neighbour(task: HeldTask) -> None:
    before = source_digest(task.spec)
    assert source_digest(task.spec) == before
    helper = Path(task.spec.rpartition(":")[0]).with_name("helper.py")
    if Path(sys.modules["helper"].__file__ or "") == helper:
        helper.write_text("SCALE = 2.0\n")
        assert source_digest(task.spec) != before
    assert source_digest("ckptools.lanes.task:Lanes") != before
