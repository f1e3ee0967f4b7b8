from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ckptools
from ckptools.layouts import read_checkpoint
from tests.builders.key_names import lora
from tests.builders.layout_trees import Thing, adam, container, module, state_dict
from tests.builders.saved_runs import adamw, foreign, network, saved, trained

WEIGHTS = ("encoder.weight", "encoder.bias")
SCALER = {"scale": 2.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 10}


def test_a_bare_state_dict(tmp_path: Path) -> None:
    found = ckptools.open(saved(network().state_dict(), tmp_path / "a.pth"))
    assert (found.layout, found.optimizers) == ("state-dict", ())
    assert found.weight_sets[0].path == ()
    assert [one.key for one in found.tensors()] == list(network().state_dict())


def test_scalars_beside_the_tensors_of_a_state_dict() -> None:
    found = read_checkpoint(container({**state_dict(*WEIGHTS), "epoch": 4}))
    assert (found.layout, found.run.epoch) == ("state-dict", 4)


def test_lightning() -> None:
    value = {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state_dict("model.encoder.weight", "model.encoder.bias"),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': None}": {"best_model_score": np.array(0.5, np.float32)},
            "EMA": {"ema_state_dict": state_dict("model.encoder.weight")},
        },
        "optimizer_states": [adam([(4, 4), (4,)]), adam([(2, 2)])],
        "lr_schedulers": [{"last_epoch": 3, "_step_count": 4, "base_lrs": [0.1]}],
        "MixedPrecision": SCALER,
        "hparams_name": "kwargs",
        "hyper_parameters": Thing("lightning.AttributeDict", {"lr": 0.1}),
    }
    found = read_checkpoint(container(value))
    assert found.layout == "lightning"
    assert [one.name for one in found.weight_sets] == ["model", "ema"]
    assert [one.key for one in found.optimizers] == ["optimizer_states.0", "optimizer_states.1"]
    assert (found.run.epoch, found.run.step) == (3, 120)
    assert found.run.hyperparameters == {"lr": 0.1}
    assert found.run.scheduler == {"last_epoch": 3, "_step_count": 4, "base_lrs": [0.1]}
    assert found.run.scaler == SCALER


def test_the_old_place_of_lightning_s_scaler() -> None:
    value = {
        "state_dict": state_dict(*WEIGHTS),
        "optimizer_states": [],
        "lr_schedulers": [],
        "global_step": 5,
        "native_amp_scaling_state": SCALER,
    }
    found = read_checkpoint(container(value))
    assert (found.layout, found.run.scaler, found.run.step) == ("lightning", SCALER, 5)


def test_mmengine() -> None:
    value = {
        "meta": {
            "epoch": 7,
            "iter": 4690,
            "cfg": "model = dict()",
            "mmengine_version": "0.10",
            "seed": 1,
        },
        "state_dict": state_dict("backbone.conv.weight", "backbone.conv.bias"),
        "ema_state_dict": {
            **state_dict("module.backbone.conv.weight"),
            "steps": np.array(3, np.int64),
        },
        "message_hub": {"log_scalars": {}, "runtime_info": {}},
        "optimizer": {**adam([(4, 4), (4,)]), "loss_scaler": SCALER},
        "param_schedulers": [{"last_step": 3, "last_epoch": 3, "_global_step": 4}],
    }
    found = read_checkpoint(container(value))
    assert found.layout == "mmengine"
    assert (found.run.epoch, found.run.step) == (7, 4690)
    assert [one.name for one in found.weight_sets] == ["model", "ema"]
    assert found.run.hyperparameters["cfg"] == "model = dict()"
    assert found.run.scaler == SCALER
    assert found.run.scheduler == {"last_step": 3, "last_epoch": 3, "_global_step": 4}
    assert len(found.optimizers) == 1


def test_mmcv_of_the_first_generation() -> None:
    value = {
        "meta": {"epoch": 12, "iter": 9000, "mmcv_version": "1.4.0", "config": "x = 1"},
        "state_dict": state_dict("pts_bbox_head.query_embedding.weight"),
        "optimizer": {"backbone": adam([(4, 4)]), "head": adam([(4, 4)])},
    }
    found = read_checkpoint(container(value))
    assert (found.layout, found.run.epoch, found.run.step) == ("mmengine", 12, 9000)
    assert [one.key for one in found.optimizers] == ["optimizer.backbone", "optimizer.head"]


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3)
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.register_buffer("kept", torch.ones(2))
        self.again = self.conv


def test_a_whole_module_gives_its_state_dict(tmp_path: Path) -> None:
    with foreign("their.code", Inner=Inner):
        model = Inner()
        path = saved(model, tmp_path / "a.pt")
        expected = list(model.state_dict())
    found = ckptools.open(path)
    assert found.layout == "whole-module"
    assert [one.key for one in found.tensors()] == expected
    kinds = {one.name: one.kind for one in found.tensors()}
    assert kinds["kept"] == "buffer"
    assert kinds["conv.weight"] == "parameter"
    assert list(found.other_tensors) == ["hidden"]
    assert found.run.extras == {"root": "whole module of class their.code.Inner"}


def test_a_whole_module_inside_a_wrapper(tmp_path: Path) -> None:
    path = saved(nn.DataParallel(network()), tmp_path / "a.pt")
    found = ckptools.open(path)
    assert found.prefixes == ("module.",)
    assert {one.name for one in found.tensors()} == set(network().state_dict())


def test_a_module_that_contains_itself_ends() -> None:
    value = container(module("a.B", {"w": [1.0]}))
    held = value.root.state.entries
    modules = next(one for key, one in held if key == "_modules")
    modules.entries.append(("self", value.root))
    assert [one.name for one in read_checkpoint(value).tensors()] == ["w"]


def test_modules_that_double_at_every_level_end() -> None:
    inner = module("a.B", {"w": [1.0]})
    value = container(inner)
    for _ in range(60):
        outer = container(module("a.B", {}))
        modules = next(one for key, one in outer.root.state.entries if key == "_modules")
        modules.entries.extend([("a", value.root), ("b", value.root)])
        value = outer
    found = read_checkpoint(value)
    assert any("too large" in reason for reason in found.not_judged)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("script", [torch.jit.script, None])
def test_torchscript(tmp_path: Path, script: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    traced = script(model) if script else torch.jit.trace(model, torch.randn(2, 4))
    path = str(tmp_path / "a.pt")
    torch.jit.save(traced, path)
    found = ckptools.open(path)
    assert found.layout == "torchscript"
    assert {one.name for one in found.tensors()} == set(model.state_dict())


def test_a_peft_adapter_file() -> None:
    found = read_checkpoint(container({key: np.zeros(s) for key, s in lora(adapter=None).items()}))
    assert found.layout == "peft"
    assert found.prefixes == ("base_model.model.",)
    assert [one.name for one in found.weight_sets] == ["adapter"]
    assert {one.role for one in found.tensors()} == {"lora"}


def test_a_whole_peft_model_is_a_state_dict() -> None:
    found = read_checkpoint(container({key: np.zeros(s) for key, s in lora().items()}))
    assert found.layout == "state-dict"


def trainer_folder(folder: Path) -> None:
    model = network()
    optimizer = adamw(model)
    trained(model, optimizer)
    saved(model.state_dict(), folder / "pytorch_model.bin")
    saved(optimizer.state_dict(), folder / "optimizer.pt")
    saved({"base_lrs": [0.1], "last_epoch": 3, "_step_count": 4}, folder / "scheduler.pt")


def test_the_hf_trainer_s_folder(tmp_path: Path) -> None:
    trainer_folder(tmp_path)
    rng = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    saved(rng, tmp_path / "rng_state.pth")
    state = {"epoch": 1.5, "global_step": 3, "log_history": [], "max_steps": 10}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    with foreign("transformers.training_args", TrainingArguments=type("TrainingArguments", (), {})):
        from transformers.training_args import TrainingArguments  # type: ignore[import-not-found]

        arguments = TrainingArguments()
        arguments.learning_rate = 5e-5
        saved(arguments, tmp_path / "training_args.bin")
    found = ckptools.open(str(tmp_path))
    assert found.layout == "hf-trainer"
    assert (found.run.epoch, found.run.step) == (1, 3)
    assert found.run.hyperparameters == {"learning_rate": 5e-5}
    assert found.run.has_rng
    assert found.run.scheduler is not None
    assert [one.name for one in found.weight_sets] == ["model"]
    assert (found.optimizers[0].kind, found.optimizers[0].set) == ("AdamW", "model")


def test_accelerate_s_folder(tmp_path: Path) -> None:
    trainer_folder(tmp_path)
    (tmp_path / "optimizer.pt").rename(tmp_path / "optimizer.bin")
    (tmp_path / "scheduler.pt").rename(tmp_path / "scheduler.bin")
    states = {
        "step": 9,
        "random_state": random.getstate(),
        "torch_manual_seed": torch.get_rng_state(),
    }
    saved(states, tmp_path / "random_states_0.pkl")
    found = ckptools.open(str(tmp_path))
    assert found.layout == "accelerate"
    assert found.run.step == 9
    assert found.run.has_rng
    assert found.optimizers[0].set == "model"


def test_two_models_of_accelerate(tmp_path: Path) -> None:
    trainer_folder(tmp_path)
    (tmp_path / "optimizer.pt").rename(tmp_path / "optimizer.bin")
    (tmp_path / "scheduler.pt").unlink()
    saved({"d.weight": torch.ones(2, 2)}, tmp_path / "pytorch_model_1.bin")
    found = ckptools.open(str(tmp_path))
    assert [one.name for one in found.weight_sets] == ["model", "model_1"]
    assert found.optimizers[0].set == "model"


@pytest.mark.parametrize(
    "value",
    [
        Thing("argparse.Namespace", {"lr": 0.1}),
        [np.ones(3), 2, 3],
        7,
        None,
        "text",
        {},
        [],
        (),
        Thing("some.Object"),
        {1: {2: {3: np.ones(2)}}},
    ],
)
def test_anything_else_is_listed(value: Any) -> None:
    found = read_checkpoint(container(value))
    assert found.weight_sets == ()
    assert found.run.extras or found.other_tensors


def test_saved_arguments_alone() -> None:
    found = read_checkpoint(container(Thing("argparse.Namespace", {"lr": 0.1}), "torch-legacy"))
    assert found.run.hyperparameters == {"lr": 0.1}


def test_an_adapter_in_the_trainer_s_folder(tmp_path: Path) -> None:
    trainer_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    adapter = {key: torch.zeros(shape) for key, shape in lora(adapter=None).items()}
    saved(adapter, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    found = ckptools.open(str(tmp_path))
    assert [one.name for one in found.weight_sets] == ["adapter"]
    assert found.run.hyperparameters == {"r": 4, "lora_alpha": 8}


def test_a_counter_in_a_compressed_record(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.pth", tmp_path / "b.pth"
    saved({"model": {"a.weight": torch.ones(2)}, "epoch": torch.tensor(7)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert ckptools.open(str(packed)).run.epoch == 7


def parameters() -> list[torch.Tensor]:
    return [p.detach().clone() for p in network().parameters()]


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_parameters_is_a_weight_set(kind: type, tmp_path: Path) -> None:
    torch.save(kind([*parameters(), {"epoch": 3}]), tmp_path / "list.pt")
    found = ckptools.open(tmp_path / "list.pt")
    (weights,) = found.weight_sets
    assert [one.name for one in weights.tensors] == [str(n) for n in range(len(parameters()))]
    assert found.layout == "objects"
    assert not found.other_tensors


def test_a_lone_tensor_is_a_weight_set(tmp_path: Path) -> None:
    torch.save(torch.nn.Parameter(torch.ones(3)), tmp_path / "one.pt")
    (weights,) = ckptools.open(tmp_path / "one.pt").weight_sets
    assert [(one.name, one.kind) for one in weights.tensors] == [("tensor", "parameter")]


def test_composer_keeps_everything_below_state(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    state = {
        "model": model.state_dict(),
        "optimizers": {"Adam": optimizer.state_dict()},
        "timestamp": {"Timestamp": {"epoch": 2, "iteration": 100}},
    }
    torch.save({"state": state, "rng": []}, tmp_path / "ep2.pt")
    found = ckptools.open(tmp_path / "ep2.pt")
    assert [(one.name, one.path) for one in found.weight_sets] == [("model", ("state", "model"))]
    assert (found.run.epoch, found.run.step) == (2, 100)
    assert found.optimizers[0].matched_by == "order"


def test_one_set_under_two_keys_is_what_the_optimizer_trains(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    twice = {"model": model.state_dict(), "state_dict": model.state_dict()}
    torch.save({**twice, "optimizer": optimizer.state_dict()}, tmp_path / "two.pt")
    assert ckptools.open(tmp_path / "two.pt").optimizers[0].set == "model"
