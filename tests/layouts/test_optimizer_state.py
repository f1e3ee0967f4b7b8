from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptools
from ckptools.layouts import read_checkpoint
from ckptools.layouts.optimizer_state import is_optimizer, parse
from ckptools.types.checkpoint import OptimizerState
from tests.builders.layout_trees import adam, container, state_dict, tree
from tests.builders.saved_runs import network, saved, trained

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Adam": ("Adam", {}),
    "Adam with decay": ("Adam", {"weight_decay": 0.1}),
    "AdamW": ("AdamW", {}),
    "AMSGrad": ("Adam", {"amsgrad": True}),
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD with momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {}),
    "RMSprop": ("RMSprop", {"momentum": 0.9, "centered": True}),
    "Adadelta": ("Adadelta", {}),
    "NAdam": ("NAdam", {}),
    "RAdam": ("RAdam", {}),
    "Adamax": ("Adamax", {}),
    "ASGD": ("ASGD", {}),
    "Rprop": ("Rprop", {}),
    "Adafactor": ("Adafactor", {}),
}


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("case", sorted(OPTIMIZERS))
def test_the_kind_of_every_optimizer_of_torch(case: str, steps: int, tmp_path: Path) -> None:
    name, settings = OPTIMIZERS[case]
    model = network()
    optimizer = getattr(torch.optim, name)(model.parameters(), **settings)
    trained(model, optimizer, steps)
    path = saved(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt"
    )
    (found,) = ckptools.open(path).optimizers
    assert found.kind == ("AMSGrad" if case == "AMSGrad" else name)
    stateful = case == "Adagrad" or (steps > 0 and case != "SGD")
    assert [state.has_state for state in found.states] == [stateful] * 16
    counted = stateful and "SGD" not in case.split()
    assert {state.step for state in found.states} == ({float(steps)} if counted else {None})


def old_adam(weight_decay: float, **more: Any) -> OptimizerState:
    """Adam as torch before 2.9 saved it: nothing tells the decoupled decay."""
    return parse(tree(adam([(2, 2)], weight_decay=weight_decay, **more)), "optimizer")


def test_older_files_do_not_tell_adam_from_adamw() -> None:
    assert old_adam(0.0).kind == "Adam"
    assert old_adam(1e-4).kind == "Adam"
    assert old_adam(0.01).kind == "AdamW"
    assert old_adam(0.01, decoupled_weight_decay=False).kind == "Adam"
    assert old_adam(0.0, decoupled_weight_decay=True).kind == "AdamW"
    assert old_adam(0.0, correct_bias=True).kind == "AdamW"


def made(state: dict[str, Any], **settings: Any) -> OptimizerState:
    value = {"state": {0: state}, "param_groups": [{"params": [0], "lr": 0.1, **settings}]}
    return parse(tree(value), "optimizer")


def test_kinds_from_other_packages() -> None:
    block = {"state1": np.zeros(8, np.uint8), "absmax1": np.zeros(1), "qmap1": np.zeros(256)}
    second = {"state2": np.zeros(8, np.uint8), "absmax2": np.zeros(1), "qmap2": np.zeros(256)}
    assert made({"step": 3, **block, **second}, betas=(0.9, 0.999), eps=1e-8).kind == "Adam8bit"
    assert made({"step": 3, **block}, betas=(0.9, 0.99), eps=0.0).kind == "Lion8bit"
    assert made({"step": 3, **block}, betas=(0.9, 0.0), eps=0.0).kind == "SGD8bit"
    assert made({"step": 3, **block}, betas=(0.99, 0.0), eps=1e-8).kind == "RMSprop8bit"
    assert made({"step": 3, **block}, betas=(0.0, 0.0), eps=1e-10).kind == "Adagrad8bit"
    assert made({"step": 3, **block}, betas=(0.9, 0.99, 0.999), eps=1e-8).kind == "AdEMAMix8bit"
    short = {"step": 3, "state1": block["state1"]}
    assert made(short, betas=(0.9, 0.99), eps=0.0, weight_decay=0.01).kind == "Lion32bit"
    assert made(short, betas=(0.9, 0.0), eps=0.0).kind == "SGD32bit"
    assert made({"exp_avg": np.zeros(2)}, betas=(0.9, 0.99), weight_decay=0.0).kind == "Lion"
    rows = {"exp_avg_sq_row": np.zeros(2), "exp_avg_sq_col": np.zeros(2), "RMS": 0.1}
    assert made(rows, clip_threshold=1.0, decay_rate=-0.8).kind == "Adafactor"
    assert made({"momentum_buffer": np.zeros(2)}, ns_steps=5).kind == "Muon"
    assert made({"whatever": np.zeros(2)}).kind == "unknown"


def test_apex_counts_steps_in_the_group() -> None:
    slots = {"exp_avg": np.zeros(2), "exp_avg_sq": np.zeros(2)}
    found = made(slots, step=41, bias_correction=True, betas=(0.9, 0.999), eps=1e-8)
    assert found.states[0].step == 41


def test_fused_adam_of_deepspeed_keeps_its_step_with_each_parameter() -> None:
    """Its group's ``step`` is that of construction and never rises: the state's own counts."""
    slots = {"step": 312, "exp_avg": np.zeros(2), "exp_avg_sq": np.zeros(2)}
    settings = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "bias_correction": True}
    found = made(slots, step=0, **settings)
    assert found.states[0].step == 312
    assert found.kind == "Adam"
    assert made(slots, adam_w_mode=True, amsgrad=False, **settings).kind == "AdamW"


@pytest.mark.parametrize("way", ["fused", "foreach", "capturable"])
def test_variants_of_one_optimizer_are_one_kind(way: str) -> None:
    settings = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False,
                "maximize": False, "differentiable": False, "foreach": None, "fused": None,
                "capturable": False, "decoupled_weight_decay": True}  # fmt: skip
    slots = {"step": np.array(7, np.float32), "exp_avg": np.zeros(2), "exp_avg_sq": np.zeros(2)}
    found = made(slots, **(settings | {way: True}))
    assert (found.kind, found.states[0].step) == ("AdamW", 7)


def test_adafactor_of_transformers_keeps_rows_and_columns_of_matrices() -> None:
    settings = {"lr": None, "eps": (1e-30, 1e-3), "clip_threshold": 1.0, "decay_rate": -0.8,
                "beta1": None, "weight_decay": 0.0, "scale_parameter": True,
                "relative_step": True, "warmup_init": False}  # fmt: skip
    states = {
        0: {"step": 9, "RMS": 0.1, "exp_avg_sq_row": np.ones(4), "exp_avg_sq_col": np.ones(6)},
        1: {"step": 9, "RMS": 0.1, "exp_avg_sq": np.ones(4)},
    }
    value = {"state": states, "param_groups": [{"params": [0, 1], **settings}]}
    model = {"a.weight": np.zeros((4, 6)), "a.bias": np.zeros(4)}
    (found,) = read_checkpoint(container({"model": model, "optimizer": value})).optimizers
    assert found.kind == "Adafactor"
    assert [(one.name, one.step) for one in found.states] == [("a.weight", 9), ("a.bias", 9)]


def test_ids_may_be_addresses_or_names() -> None:
    state = {
        140_234_567_890: {"momentum_buffer": np.zeros(2)},
        "a.weight": {"momentum_buffer": np.ones(2)},
    }
    value = {
        "state": state,
        "param_groups": [{"params": [140_234_567_890, "a.weight", 5], "lr": 1}],
    }
    found = parse(tree(value), "optimizer")
    assert [one.id for one in found.states] == [140_234_567_890, "a.weight", 5]
    assert [one.has_state for one in found.states] == [True, True, False]


def test_states_of_no_group_are_kept() -> None:
    value = {"state": {7: {"exp_avg": np.zeros(2)}}, "param_groups": [{"params": [], "lr": 1}]}
    found = parse(tree(value), "optimizer")
    assert [(one.id, one.group) for one in found.states] == [(7, -1)]


def test_scalars_and_nested_tensors_of_a_state() -> None:
    found = made(
        {
            "step": np.array(4, np.int64),
            "lr": 0.5,
            "bases": [np.zeros(2), np.ones(2)],
            "none": None,
        }
    )
    (state,) = found.states
    assert (state.step, state.scalars, sorted(state.slots)) == (
        4,
        {"lr": 0.5},
        ["bases.0", "bases.1"],
    )


def test_what_is_no_optimizer() -> None:
    for value in (
        {},
        {"state": {}},
        {"state": 1, "param_groups": []},
        [],
        None,
        {"param_groups": []},
    ):
        assert not is_optimizer(tree(value))


def test_names_in_the_groups_are_used(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.named_parameters())
    trained(model, optimizer)
    weights = {f"module.{key}": one for key, one in model.state_dict().items()}
    path = saved({"model": weights, "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    (found,) = ckptools.open(path).optimizers
    assert found.matched_by == "names"
    assert [one.name for one in found.states] == [name for name, _ in model.named_parameters()]
    assert {one.standing for one in found.states} == {"sure"}


def test_ids_that_are_names_are_used() -> None:
    held = {
        "module.a.weight": {"exp_avg": np.zeros((4, 4)), "exp_avg_sq": np.zeros((4, 4)), "step": 1}
    }
    group = {"params": ["module.a.weight"], "lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
    value = {
        "model": state_dict("module.a.weight"),
        "optim": {"state": held, "param_groups": [group]},
    }
    (found,) = read_checkpoint(container(value)).optimizers
    assert [(one.name, one.standing) for one in found.states] == [("a.weight", "sure")]


def test_a_name_whose_shape_does_not_fit_is_ambiguous() -> None:
    held = {0: {"exp_avg": np.zeros((2, 2)), "exp_avg_sq": np.zeros((2, 2)), "step": 1}}
    group = {
        "params": [0],
        "param_names": ["a.weight"],
        "lr": 0.1,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
    }
    value = {"model": state_dict("a.weight"), "optim": {"state": held, "param_groups": [group]}}
    (found,) = read_checkpoint(container(value)).optimizers
    assert found.states[0].standing == "ambiguous"
