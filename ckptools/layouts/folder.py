"""Folders of the HF Trainer and of accelerate: one file for each part of a checkpoint."""

from __future__ import annotations

import re
from typing import Any

from ckptools.layouts.assembly import Assembly
from ckptools.layouts.nodes import describe, mapping
from ckptools.layouts.optimizer_state import is_optimizer
from ckptools.layouts.scalars import number, whole
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container

_WEIGHTS = re.compile(r"^(?:model|pytorch_model|adapter_model)(?:_fsdp|_\d+)?\.")
_NUMBERED = re.compile(r"_(\d+)\.\w+$")


def read_folder(container: Container, layout: str) -> Checkpoint:
    """Return the checkpoint that the parts of a folder make up."""
    assembly = Assembly(container, layout)
    for name, part in container.parts.items():
        _part(assembly, name, part)
    _documents(assembly, container.metadata.get("json", {}))
    return assembly.checkpoint()


def _part(assembly: Assembly, name: str, part: Container) -> None:
    """Sort in one file by its name, which says more than its content here."""
    if _WEIGHTS.match(name):
        assembly.weights(part.root, (name,), _set_name(name))
    elif name.startswith("optimizer") and is_optimizer(part.root):
        assembly.optimizer(name, part.root)
    elif name.startswith("training_args"):
        assembly.run.arguments(name, part.root)
    elif name.startswith("random_states"):
        _random_states(assembly, name, part.root)
    else:
        assembly.entry(name, part.root)


def _set_name(name: str) -> str:
    """Return "model", "adapter", or a numbered name for further models of accelerate."""
    base = "adapter" if name.startswith("adapter") else "model"
    number = _NUMBERED.search(name)
    return f"{base}_{number[1]}" if number else base


def _random_states(assembly: Assembly, name: str, root: Any) -> None:
    """Note accelerate's random states, which also count the steps."""
    assembly.run.has_rng = True
    assembly.run.extras[name] = describe(root)
    step = whole((mapping(root) or {}).get("step"))
    if step:
        assembly.run.counters.setdefault("step", step)


def _documents(assembly: Assembly, documents: Any) -> None:
    """Take in the JSON files beside the parts."""
    if not isinstance(documents, dict):
        return
    for name, document in documents.items():
        if name == "trainer_state.json":
            _trainer_state(assembly, document)
        elif name == "adapter_config.json":
            assembly.run.settings[name] = document
        assembly.run.extras[name] = f"mapping of {len(document)}"


def _trainer_state(assembly: Assembly, state: dict[str, Any]) -> None:
    for key, counter in (("epoch", "epoch"), ("global_step", "global_step")):
        count = whole(state.get(key))
        if count is not None:
            assembly.run.counters[counter] = count
    for key in ("epoch", "max_steps", "num_train_epochs"):
        value = number(state.get(key))
        if value is not None:
            assembly.run.progress[f"trainer_state.{key}"] = float(value)
