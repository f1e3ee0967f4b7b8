from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ckptools
from ckptools.layouts import read_checkpoint
from tests.builders.layout_trees import Thing, adam, container, module, state_dict
from tests.builders.saved_runs import network, saved, training_dict

WEIGHTS = ("encoder.weight", "encoder.bias")


def test_the_user_s_own_kind(tmp_path: Path) -> None:
    found = ckptools.open(saved(training_dict(), tmp_path / "checkpoint_epoch_12.pth"))
    assert found.layout == "training-dict"
    assert found.prefixes == ("module.",)
    (weights,) = found.weight_sets
    assert (weights.name, weights.path) == ("model", ("model_state_dict",))
    assert {one.name for one in weights.tensors} == set(network().state_dict())
    assert {one.kind for one in weights.tensors if "running" in one.name} == {"buffer"}
    first = next(one for one in weights.tensors if one.name == "layers.1.2.weight")
    assert (first.stack, first.block, first.module) == ("layers", 1, "layers.1")
    assert first.key == "module.layers.1.2.weight"
    assert (found.run.epoch, found.run.step) == (12, 3)
    assert found.run.hyperparameters == {
        "lr": 1e-3,
        "grad_clip": 35.0,
        "layers": [1, 2],
        "name": "车道",
    }
    assert found.run.scheduler is not None
    assert found.run.scheduler["T_max"] == 10
    assert found.run.scaler is not None
    assert found.run.scaler["scale"] == 65536.0
    assert found.other_tensors == {}
    assert found.not_judged == ()


def test_its_optimizer(tmp_path: Path) -> None:
    found = ckptools.open(saved(training_dict(), tmp_path / "a.pth"))
    (optimizer,) = found.optimizers
    assert (optimizer.kind, optimizer.set, optimizer.key) == (
        "AdamW",
        "model",
        "optimizer_state_dict",
    )
    assert [len(group.ids) for group in optimizer.groups] == [6, 10]
    assert optimizer.groups[0].settings["weight_decay"] == 0.01
    assert optimizer.groups[0].settings["betas"] == [0.9, 0.999]
    assert [state.position for state in optimizer.states] == [*range(6), *range(10)]
    assert {state.step for state in optimizer.states} == {3.0}
    assert {tuple(sorted(state.slots)) for state in optimizer.states} == {("exp_avg", "exp_avg_sq")}


@pytest.mark.parametrize(
    "key",
    [
        "model",
        "state_dict",
        "model_state_dict",
        "net",
        "module",
        "network",
        "weights",
        "model_state",
        "params",
    ],
)
def test_the_usual_keys_of_weights(key: str) -> None:
    found = read_checkpoint(container({key: state_dict(*WEIGHTS), "epoch": 3}))
    assert [one.name for one in found.weight_sets] == ["model"]
    assert found.run.epoch == 3


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (("model", "ema"), ["model", "ema"]),
        (("model", "model_ema"), ["model", "ema"]),
        (("state_dict", "ema_state_dict"), ["model", "ema"]),
        (("netG", "netD"), ["netG", "netD"]),
        (("generator_state_dict", "discriminator_state_dict"), ["generator", "discriminator"]),
        (("student", "teacher"), ["student", "teacher"]),
        (("model", "state_dict"), ["model", "state_dict"]),
        (("best_model_state_dict", "model_state_dict"), ["best", "model"]),
    ],
)
def test_several_weight_sets(keys: tuple[str, str], names: list[str]) -> None:
    found = read_checkpoint(container({key: state_dict(*WEIGHTS) for key in keys}))
    assert [one.name for one in found.weight_sets] == names
    assert {one.set for one in found.tensors()} == set(names)


def test_optimizers_are_paired_with_the_sets_that_they_train() -> None:
    big, small = state_dict("a.weight", width=8), state_dict("a.weight", width=4)
    for first, second in (
        ("optimizerG_state_dict", "optimizerD_state_dict"),
        ("optim_g", "optim_d"),
        ("G_optimizer", "D_optimizer"),
        ("one_optimizer", "two_optimizer"),  # by shapes
    ):
        value = {"netG": big, "netD": small, first: adam([(8, 8)]), second: adam([(4, 4)])}
        found = read_checkpoint(container(value))
        assert [one.set for one in found.optimizers] == ["netG", "netD"], first
        assert [one.states[0].name for one in found.optimizers] == ["a.weight"] * 2


def test_an_average_is_followed_and_not_trained() -> None:
    value = {
        "model": state_dict(*WEIGHTS),
        "ema": state_dict(*WEIGHTS),
        "optimizer": adam([(4, 4), (4,)]),
    }
    assert read_checkpoint(container(value)).optimizers[0].set == "model"


def test_state_dicts_below_other_keys() -> None:
    value = {
        "model": {"state_dict": state_dict(*WEIGHTS), "model_args": {"layers": 3}},
        "optimizer": {"G": adam([(4, 4), (4,)]), "D": adam([(9, 9)])},
    }
    found = read_checkpoint(container(value))
    assert [(one.name, one.path) for one in found.weight_sets] == [
        ("model", ("model", "state_dict"))
    ]
    assert [one.key for one in found.optimizers] == ["optimizer.G", "optimizer.D"]
    assert found.run.hyperparameters == {"layers": 3}


def test_parts_of_one_model_under_their_names() -> None:
    value = {"model": {"encoder": state_dict("a.weight"), "decoder": state_dict("b.weight")}}
    found = read_checkpoint(container(value))
    assert [(one.name, one.path) for one in found.weight_sets] == [
        ("encoder", ("model", "encoder")),
        ("decoder", ("model", "decoder")),
    ]


def test_whole_modules_among_the_entries() -> None:
    model = module("models.yolo.Model", {"w": [1.0]}, {"0": module("nn.Conv", {"weight": [2.0]})})
    value = {"epoch": -1, "model": model, "ema": model, "optimizer": None, "updates": 7}
    found = read_checkpoint(container(value))
    assert found.layout == "whole-module"
    assert [one.name for one in found.weight_sets] == ["model", "ema"]
    assert found.run.extras["model"] == "whole module of class models.yolo.Model"
    assert [one.name for one in found.weight_sets[0].tensors] == ["w", "0.weight"]
    assert (found.run.epoch, found.run.extras["epoch"]) == (None, "-1")  # the training is over


def test_tensors_of_other_things_are_listed_apart() -> None:
    value = {
        "model": state_dict(*WEIGHTS),
        "normalizer": {"mean": np.ones(()), "std": np.ones(())},
        "rng_state": np.zeros(5056, np.uint8),
        "history": [np.ones(3)],
    }
    found = read_checkpoint(container(value))
    assert [one.name for one in found.weight_sets] == ["model"]
    assert sorted(found.other_tensors) == [
        "history.0",
        "normalizer.mean",
        "normalizer.std",
        "rng_state",
    ]
    assert found.run.has_rng


def test_unknown_objects_stay_inert_and_are_named() -> None:
    value = {"model": state_dict(*WEIGHTS), "criterion": Thing("my.code.Loss", {"weight": 2})}
    found = read_checkpoint(container(value))
    assert found.run.extras == {"criterion": "object of my.code.Loss"}


def test_saved_arguments_of_an_unknown_class_are_named_and_read() -> None:
    value = {"model": state_dict(*WEIGHTS), "config": Thing("my.code.Config", {"lr": 0.5})}
    found = read_checkpoint(container(value))
    assert found.run.hyperparameters == {"lr": 0.5}
    assert found.run.extras == {"config": "object of my.code.Config"}


def test_a_counter_may_be_a_tensor_or_lie_in_a_mapping() -> None:
    value = {
        "model": state_dict(*WEIGHTS),
        "epoch": np.array(4, np.int64),
        "trainer": {"step": 17},
    }
    found = read_checkpoint(container(value))
    assert (found.run.epoch, found.run.step) == (4, 17)


def test_totals_are_no_counters() -> None:
    found = read_checkpoint(
        container({"model": state_dict(*WEIGHTS), "epochs": 90, "max_steps": 5})
    )
    assert (found.run.epoch, found.run.step) == (None, None)


def test_an_optimizer_alone() -> None:
    found = read_checkpoint(container(adam([(4, 4)])))
    assert found.layout == "training-dict"
    assert found.weight_sets == ()
    assert found.optimizers[0].kind == "Adam"


def test_a_pickled_optimizer_object(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    path = saved({"model": model.state_dict(), "optimizer": optimizer}, tmp_path / "a.pth")
    (found,) = ckptools.open(path).optimizers
    assert found.kind == "SGD"
    assert all("momentum_buffer" in state.slots for state in found.states)
    assert len(found.states) == len(list(model.parameters()))


def test_apex_and_mmengine_keep_a_scaler_with_the_optimizer() -> None:
    value = {
        "model": state_dict(*WEIGHTS),
        "optimizer": {**adam([(4, 4)]), "loss_scaler": {"scale": 2.0}},
    }
    found = read_checkpoint(container(value))
    assert found.run.scaler == {"scale": 2.0}
    assert len(found.optimizers) == 1


def test_lists_of_models_and_optimizers_go_together() -> None:
    value = {
        "models": [state_dict("a.weight"), state_dict("a.weight")],
        "optimizers": [adam([(4, 4)]), adam([(4, 4)])],
    }
    found = read_checkpoint(container(value))
    assert [one.name for one in found.weight_sets] == ["model_0", "model_1"]
    assert [one.set for one in found.optimizers] == ["model_0", "model_1"]


def test_models_held_by_an_object() -> None:
    trainer = Thing(
        "their.Trainer",
        {"model": module("their.Net", {"w": [1.0]}), "epoch": 3, "opt": adam([(1,)])},
    )
    for value in (trainer, {"trainer": trainer}):
        found = read_checkpoint(container(value))
        assert [one.name for one in found.tensors()] == ["w"]


def test_counters_two_levels_down() -> None:
    value = {"model": state_dict(*WEIGHTS), "extra_state": {"train_iterator": {"epoch": 3}}}
    assert read_checkpoint(container(value)).run.epoch == 3


def test_keys_that_only_sound_like_optimizers() -> None:
    found = read_checkpoint(container({"optimal_model": state_dict(*WEIGHTS)}))
    assert [one.name for one in found.weight_sets] == ["optimal"]


def test_a_scheduler_s_state_alone_counts_no_epochs() -> None:
    state = {"base_lrs": [0.1], "last_epoch": 12, "_step_count": 13, "_last_lr": [0.05]}
    run = read_checkpoint(container(state)).run
    assert run.epoch is None
    assert run.scheduler is not None
    assert run.scheduler["last_epoch"] == 12
