from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from ckptools.errors import TaskError
from ckptools.rerun.adapters.functions import endless, mean_terms
from ckptools.rerun.evaluate import evaluate
from ckptools.rerun.task import load_task
from ckptools.workflows.rerun import rerun
from tests.builders.rerun_tasks import PAIR, train, write_task


@pytest.fixture
def spec(tmp_path: Path) -> str:
    return f"{write_task(tmp_path, PAIR, 'pair.py')}:setup,loss"


def test_a_pair_of_functions_is_a_task(spec: str) -> None:
    task = load_task(spec, {"width": 6})
    model = task.build()
    assert model[0].weight.shape == (6, 4)
    assert task.known == ("width", "lr")
    assert task.clip_norm == 5.0
    one, other = (next(task.batches(seed)) for seed in (0, 1))
    assert not torch.equal(one[0], other[0])
    assert torch.equal(one[0], next(task.batches(0))[0])
    assert set(task.loss(model, one)) == {"total"}
    values = evaluate(task, model)
    assert list(values) == ["loss"]


def test_every_model_is_fresh_and_every_optimizer_without_state(spec: str) -> None:
    task = load_task(spec)
    first, second = task.build(), task.build()
    assert first is not second
    optimizer = task.optimizer(first)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in first.parameters()
    }
    task.loss(first, next(task.batches(0)))["total"].backward()
    optimizer.step()
    assert optimizer.state
    again = task.optimizer(first)
    assert not again.state
    assert again.param_groups[0]["momentum"] == 0.9


def test_the_ladder_climbs_on_a_pair(spec: str, tmp_path: Path) -> None:
    earlier, later = train(load_task(spec), tmp_path, (30, 60))
    state = torch.load(later, weights_only=True)
    state["model"]["0.weight"] *= 30.0
    torch.save(state, tmp_path / "sick.pth")
    found = rerun(tmp_path / "sick.pth", spec, earlier=earlier)
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "weights")
    assert found.verdict.module == "0"


def test_settings_that_setup_lacks_are_refused(spec: str) -> None:
    with pytest.raises(TaskError, match=r"refuses its settings.*'depth'.*width"):
        load_task(spec, {"depth": 3})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def setup(): return 3\ndef loss(m, b): pass", "no mapping"),
        ("def setup(): return {'model': 1}\ndef loss(m, b): pass", "lacks optimizer, lacks train"),
        (
            "def setup(): return dict(model=1, optimizer=1, train=1, validation=1, colour=1)\n"
            "def loss(m, b): pass",
            "knows no colour",
        ),
    ],
)
def test_what_setup_must_give_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    file = write_task(tmp_path, text, f"bad_{abs(hash(text))}.py")
    with pytest.raises(TaskError, match=complaint):
        load_task(f"{file}:setup,loss")


def test_more_than_two_functions_are_no_pair(spec: str) -> None:
    with pytest.raises(TaskError, match="pair"):
        load_task(f"{spec},setup")


def test_an_empty_loader_is_no_endless_loop() -> None:
    with pytest.raises(TaskError, match="no training batches"):
        next(endless(list))
    assert list(itertools.islice(endless(lambda: [1, 2]), 5)) == [1, 2, 1, 2, 1]


def test_the_mean_of_terms_weighs_them_for_the_loss_only() -> None:
    terms = [
        {"a": torch.tensor(1.0), "b": torch.tensor(2.0)},
        {"a": torch.tensor(3.0), "b": torch.tensor(4.0)},
    ]
    assert mean_terms(terms, {"a": 10.0}) == {"loss": 23.0, "a": 2.0, "b": 3.0}
    with pytest.raises(TaskError, match="no validation batches"):
        mean_terms([], {})
