"""Transformers' tiny models: whatever is done to them, model and optimizer load, and train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.surgery.operation import operations
from ckptools.workflows.operate import operate
from tests.builders.family_models import FAMILIES, resume, step, training_dict

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

OPERATIONS: list[tuple[str, dict[str, Any]]] = [
    ("assign", {"lr": "x0.1", "step": 7, "epoch": 9}),
    ("blend", {"module": "MODULE", "from_checkpoint": "EARLIER"}),
    ("blend", {"module": "MODULE", "shrink": 0.5, "amount": 0.1}),
    ("cast", {"module": "MODULE", "dtype": "bfloat16"}),
    ("drop", {"module": "MODULE"}),
    ("rename", {"module": "MODULE", "to": "renamed.1"}),
    ("repair", {"from_checkpoint": "EARLIER"}),
    ("rescale", {"module": "MODULE"}),
    ("reset", {"module": "MODULE", "match_scale": True}),
    ("reset", {"module": "MODULE", "optimizer": "warm"}),
    ("reset-optimizer", {}),
    ("reset-optimizer", {"moments": "second"}),
    ("strip", {"part": "optimizer"}),
    ("transplant", {"module": "MODULE", "from_checkpoint": "EARLIER"}),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        source = training_dict(name, folder / f"{name}.pth", 3)
        training_dict(name, folder / f"{name}_early.pth", 1)
        sick = torch.load(source, weights_only=True)
        first = next(key for key in sick["model_state_dict"] if f"{FAMILIES[name][1]}.1." in key)
        sick["model_state_dict"][first].view(-1)[0] = float("nan")
        torch.save(sick, folder / f"{name}_sick.pth")
    return folder


def test_every_operation_is_tried() -> None:
    assert {name for name, _ in OPERATIONS} == set(operations.names())


@pytest.mark.parametrize(("operation", "options"), OPERATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_result_loads_and_trains(
    family: str, operation: str, options: dict[str, Any], files: Path, tmp_path: Path
) -> None:
    module = f"{FAMILIES[family][1]}.1"
    filled = {"MODULE": module, "EARLIER": str(files / f"{family}_early.pth")}
    given = {key: filled.get(str(value), value) for key, value in options.items()}
    source = files / f"{family}{'_sick' if operation == 'repair' else ''}.pth"
    operate(operation, source, tmp_path / "new.pth", **given)
    if operation == "rename":  # no class has these names: and back again
        back = {"module": "renamed.1", "to": module}
        operate("rename", tmp_path / "new.pth", tmp_path / "back.pth", **back)
        resume(family, tmp_path / "back.pth")
        return
    resume(family, tmp_path / "new.pth", 2 if operation == "drop" else 3)


def test_lora_starts_as_nothing_and_its_base_stays(files: Path, tmp_path: Path) -> None:
    operate("reset", files / "lora.pth", tmp_path / "new.pth", module="*lora_*")
    old, new = (
        torch.load(path, weights_only=True)["model_state_dict"]
        for path in (files / "lora.pth", tmp_path / "new.pth")
    )
    for name, value in new.items():
        if "lora_B" in name:
            assert not value.any()
        elif "lora_A" in name:
            assert value.abs().max() <= 16**-0.5
            assert not torch.equal(value, old[name])
        else:
            assert torch.equal(value, old[name])


@pytest.mark.parametrize(("operation", "blocks"), [("reset", 3), ("drop", 2), ("rescale", 3)])
def test_shards_that_transformers_wrote_are_read_by_it(
    operation: str, blocks: int, tmp_path: Path
) -> None:
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = FAMILIES["llama"][0](3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step(model, optimizer)
    folder = tmp_path / "checkpoint-1"
    model.save_pretrained(folder, max_shard_size="8KB")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    operate(operation, folder, module="model.layers.1")
    output = tmp_path / f"checkpoint-1.{operation}"
    config = json.loads((output / "config.json").read_text()) | {"num_hidden_layers": blocks}
    (output / "config.json").write_text(json.dumps(config))
    again, info = LlamaForCausalLM.from_pretrained(output, output_loading_info=True)
    assert not any(info.values())
    resumed = torch.optim.AdamW(again.parameters(), lr=1e-3)
    resumed.load_state_dict(torch.load(output / "optimizer.pt", weights_only=True))
    names = [name for name, _ in again.named_parameters()]
    zero = {i for i, state in resumed.state_dict()["state"].items() if not state["exp_avg"].any()}
    touched = {i for i, name in enumerate(names) if name.startswith("model.layers.1.")}
    assert zero == (touched if operation == "reset" else set())
    step(again.train(), resumed)
