from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from ckptools.lanes.settings import RATES
from ckptools.lanes.task import Lanes, Schedule
from ckptools.lanes.train import load, one_thread


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    saved = load(path)["model_state_dict"]
    return {name.removeprefix("module."): value for name, value in saved.items()}


def test_unknown_settings_are_refused_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match="depth"):
        Lanes({"depth": 3})


def test_settings_lists_what_can_be_set() -> None:
    assert {"blocks", "warmup", "clip", "lr", "aux_weights"} <= set(Lanes.settings)
    defaults = {name: value for name, value in Lanes.settings.items() if value is not None}
    assert Lanes(defaults).chosen == Lanes().chosen


def test_terms_and_weights_have_the_same_names() -> None:
    task = Lanes({"size": "small", "blocks": 3, "aux_weights": [0.1, 0.2, 0.3]})
    terms = task.loss(task.build(), next(task.batches(0)))
    assert (
        set(terms)
        == set(task.weights())
        == {f"{t}.{n}" for t in ("cls", "pts", "dir") for n in range(3)}
    )
    assert all(term.shape == () for term in terms.values())
    assert task.weights()["pts.0"] == pytest.approx(0.5)
    assert task.weights()["pts.2"] == pytest.approx(5 * 1.3)


def test_batches_repeat_from_the_seed() -> None:
    task = Lanes({"batch": 2})
    first = [one["tiles"] for one in islice(task.batches(5), 2)]
    again = [one["tiles"] for one in islice(task.batches(5), 2)]
    assert all(map(torch.equal, first, again))
    assert len(first[0]) == 2


def test_cameras_in_another_order_change_what_the_model_sees_and_nothing_else() -> None:
    right, wrong = (
        next(Lanes({"cameras": order}).batches(0))
        for order in ([0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5])
    )
    assert torch.equal(right["lines"], wrong["lines"])
    assert torch.equal(right["tiles"][:, [1, 0, 2, 3, 4, 5]], wrong["tiles"])
    assert not torch.equal(right["tiles"], wrong["tiles"])


def test_optimizer_has_the_named_groups_and_every_learning_parameter_once() -> None:
    task = Lanes({"size": "small", "lr_scale": 0.5})
    model = task.build()
    groups = task.optimizer(model).param_groups
    assert {group["name"]: group["lr"] for group in groups} == {
        name: rate / 2 for name, rate in RATES.items()
    }
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_schedule_warms_up_and_then_falls_slowly() -> None:
    factor = Schedule(warmup=50, horizon=6400)
    assert factor(0) == pytest.approx(1 / 50)
    assert factor(49) == pytest.approx(1.0, abs=1e-3)
    assert factor(13 * 64) == pytest.approx(0.96, abs=0.005)
    assert factor(6400) == factor(9999) == 0.0
    assert Schedule(warmup=0, horizon=10)(0) == 1.0


def test_scheduler_steps_every_group() -> None:
    task = Lanes({"size": "small", "warmup": 4})
    optimizer = task.optimizer(task.build())
    scheduler = task.scheduler(optimizer)
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(
        [rate / 2 for rate in RATES.values()], rel=1e-3
    )


def test_evaluation_of_a_saved_epoch_gives_the_logged_values(lanes_run: Path) -> None:
    task = Lanes({"size": "small", "log": lanes_run / "train.jsonl"})
    assert list(task.logged) == [0, 1, 2, 3]
    model = task.build()
    model.load_state_dict(weights_of(lanes_run / "checkpoint_epoch_2.pth"))
    with one_thread():
        values = task.evaluate(model.eval())
    assert values == pytest.approx(task.logged[2], rel=1e-6)


def test_without_a_log_nothing_is_logged() -> None:
    assert Lanes().logged == {}


def test_evaluation_loss_does_not_depend_on_auxiliary_weights(lanes_run: Path) -> None:
    losses = []
    for aux in (0.1, 0.5):
        task = Lanes({"size": "small", "aux_weights": aux})
        model = task.build()
        model.load_state_dict(weights_of(lanes_run / "checkpoint_epoch_3.pth"))
        losses.append(task.evaluate(model)["loss"])
    assert losses[0] == losses[1]


def test_a_data_bug_shows_in_the_evaluation(lanes_run: Path) -> None:
    values = {}
    for order in ([0, 1, 2, 3, 4, 5], [2, 1, 0, 5, 4, 3]):
        task = Lanes({"size": "small", "cameras": order})
        model = task.build()
        model.load_state_dict(weights_of(lanes_run / "checkpoint_epoch_3.pth"))
        values[order[0]] = task.evaluate(model)["loss"]
    assert values[2] > 1.1 * values[0]


def test_modules_cover_every_parameter_exactly_once() -> None:
    task = Lanes({"size": "small", "blocks": 2})
    for name, _ in task.build().named_parameters():
        owners = [unit for unit in task.modules if name == unit or name.startswith(f"{unit}.")]
        assert len(owners) == 1, name


def test_modules_all_exist() -> None:
    task = Lanes({"size": "full"})
    names = list(task.build().state_dict())
    assert all(
        any(name == unit or name.startswith(f"{unit}.") for name in names) for unit in task.modules
    )


def test_probes_see_collapsed_and_saturated_lines() -> None:
    task = Lanes({"size": "small", "blocks": 1})
    model = task.build()
    batch = next(task.batches(0))
    usual = task.probes(model, batch)
    assert usual["median_segment"] > 0.05
    head = model.decoder.reg_branches[0][2]
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, 50.0)
    shrunk = task.probes(model, batch)
    assert shrunk["saturated"] == shrunk["collapsed"] == 1.0
    assert shrunk["median_segment"] < 0.01
