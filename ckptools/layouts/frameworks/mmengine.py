"""Checkpoints of mmcv and mmengine (mmdetection, mmsegmentation, MapTR...)."""

from __future__ import annotations

from typing import Any

from ckptools.layouts.assembly import Assembly, is_state_dict
from ckptools.layouts.nodes import mapping
from ckptools.layouts.registry import layouts
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container

#: Metadata that nothing else writes.
_TELLING = frozenset(
    (
        *("mmengine_version", "mmcv_version", "mmdet_version", "mmdet3d_version", "cfg", "config"),
        *("CLASSES", "dataset_meta", "experiment_name", "hook_msgs", "env_info"),
    )
)


class MMEngine:
    """``meta`` with counters and the configuration's text, beside ``state_dict``."""

    def matches(self, container: Container) -> float:
        """Return 0.9 for a state dict beside metadata that only these frameworks write."""
        held = mapping(container.root) or {}
        meta = mapping(held.get("meta"))
        if meta is None or not is_state_dict(held.get("state_dict"), "state_dict"):
            return 0.0
        if _TELLING & meta.keys() or "message_hub" in held:
            return 0.9
        return 0.8 if {"epoch", "iter"} <= meta.keys() else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return the weights, an averaged copy where there is one, and the optimizers."""
        assembly = Assembly(container, "mmengine")
        held = mapping(container.root) or {}
        assembly.weights(held.pop("state_dict"), ("state_dict",), "model")
        _meta(assembly, held.pop("meta"))
        for key, node in held.items():
            assembly.entry(key, node)
        return assembly.checkpoint()


def _meta(assembly: Assembly, node: Any) -> None:
    assembly.run.arguments("meta", node)
    held = mapping(node) or {}
    for key in ("epoch", "iter"):
        if key in held:
            assembly.run.note(key, held[key])


layouts.add("mmengine", MMEngine())
