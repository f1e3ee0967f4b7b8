"""PyTorch Lightning's checkpoints."""

from __future__ import annotations

from typing import Any

from ckptools.layouts.assembly import Assembly, is_state_dict
from ckptools.layouts.nodes import mapping, sequence
from ckptools.layouts.registry import layouts
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container

_VERSION = "pytorch-lightning_version"
#: Arguments of the module and of the data module.
_ARGUMENTS = ("hyper_parameters", "datamodule_hyper_parameters", "hparams")
#: Plug-ins that keep the gradient scaler.
_SCALERS = ("native_amp_scaling_state", "amp_scaling_state", "MixedPrecision",
            "MixedPrecisionPlugin", "NativeMixedPrecisionPlugin")  # fmt: skip


class Lightning:
    """``state_dict`` beside lists of optimizers and schedulers, callbacks and loops."""

    def matches(self, container: Container) -> float:
        """Return 0.95 when the version is there, 0.85 for its usual keys without it."""
        held = mapping(container.root) or {}
        if not is_state_dict(held.get("state_dict"), "state_dict"):
            return 0.0
        if _VERSION in held:
            return 0.95
        return 0.85 if {"optimizer_states", "lr_schedulers", "global_step"} <= held.keys() else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return the module's weights as the set ``model``."""
        assembly = Assembly(container, "lightning")
        held = mapping(container.root) or {}
        assembly.weights(held.pop("state_dict"), ("state_dict",), "model")
        for index, node in enumerate(sequence(held.pop("optimizer_states", None)) or []):
            assembly.optimizer(f"optimizer_states.{index}", node)
        for key in _ARGUMENTS:
            if key in held:
                assembly.run.arguments(key, held.pop(key))
        for key, node in held.items():
            _entry(assembly, key, node)
        return assembly.checkpoint()


def _entry(assembly: Assembly, key: str, node: Any) -> None:
    """Sort in one entry; callbacks may hold scalers and averaged weights of their own."""
    if key in _SCALERS:
        assembly.run.note("scaler", node)
        return
    if key == "loops":
        held = mapping(node) or {}
        assembly.run.loops("loops", held.get("fit_loop", node))
        return
    if key != "callbacks":
        assembly.entry(key, node)
        return
    for name, state in (mapping(node) or {}).items():
        if name.partition("{")[0] in _SCALERS:
            assembly.run.note("scaler", state)
        else:
            assembly.entry(f"callbacks.{name}", state)


layouts.add("lightning", Lightning())
