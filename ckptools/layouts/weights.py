"""Weight sets: a state dict's tensors with names, kinds, places and roles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ckptools.layouts.nodes import key_text
from ckptools.names import prefixes, roles, stacks
from ckptools.types.checkpoint import NamedTensor, WeightSet
from ckptools.types.tensor import FLOATING, TensorRef
from ckptools.types.tree import class_name, entries, unwrap

#: What modules call the tensors that are no parameters.
_BUFFER = re.compile(
    r"(?:^|\.)(?:running_(?:mean|var)|num_batches_tracked|position_ids|token_type_ids|inv_freq"
    r"|relative_position_index|relative_coords_table|relative_position_bucket|attn_mask|mask"
    r"|masked_bias|n_averaged|pixel_(?:mean|std)|(?:cos|sin)_cached|freqs_cis|pe|_extra_state"
    r"|anchor_grid|initialized|original_inv_freq|min_val|max_val|activation_post_process\..*"
    r"|scale_factor|cluster_size|embed_avg)$"
)
_COMPLEX = ("complex32", "complex64", "complex128")


def tensors_of(node: Any) -> dict[str, TensorRef]:
    """Return the tensors directly in a mapping, by key (the last of duplicates)."""
    found = ((key_text(key), unwrap(value)) for key, value in entries(node) or [])
    return {key: value for key, value in found if isinstance(value, TensorRef)}


def broken_tensors(node: Any) -> tuple[str, ...]:
    """Return the keys of what should be tensors of a mapping and cannot be understood as such."""
    return tuple(
        key_text(key)
        for key, value in entries(node) or []
        if tensor_like(value) and not _ref(value)
    )


def tensor_like(node: Any) -> bool:
    """Return whether ``node`` is a tensor, or a call that would have made one."""
    return _ref(node) is not None or (class_name(node) or "").startswith("torch._utils._rebuild_")


def _ref(node: Any) -> TensorRef | None:
    found = unwrap(node)
    return found if isinstance(found, TensorRef) else None


def weight_set(
    name: str,
    tensors: Mapping[str, TensorRef],
    path: tuple[str, ...] = (),
    buffers: Iterable[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> WeightSet:
    """Return the weight set of ``tensors`` by key.

    Parameters
    ----------
    name: of the set.
    tensors: by the file's own key, in file order.
    path: keys that lead to the state dict from the top of the file.
    buffers: keys of the tensors known to be buffers; None when the file does not say.
    names: by key, where they are not the keys without wrapper prefixes.
    """
    found, stripped = prefixes.strip(tensors)
    names = stripped if names is None else names
    shapes = {names[key]: ref.shape for key, ref in tensors.items()}
    placed = stacks.places(shapes, shapes)
    given = roles.roles(shapes, placed)
    known = None if buffers is None else set(buffers)
    members = []
    for key, ref in tensors.items():
        place = placed[names[key]]
        members.append(
            NamedTensor(
                name=names[key],
                key=key,
                set=name,
                ref=ref,
                kind=_kind(key, ref, known),
                stack=place.stack,
                block=place.block,
                module=place.module,
                role=given[names[key]],
            )
        )
    return WeightSet(name, tuple(members), found, path)


def _kind(key: str, ref: TensorRef, buffers: set[str] | None) -> str:
    """Return "buffer" or "parameter", from what the file says, else from name and dtype."""
    if buffers is not None:
        return "buffer" if key in buffers else "parameter"
    if ref.parameter:
        return "parameter"
    if key.endswith("bias") and len(ref.shape) == 4 and ref.shape[:2] == (1, 1):
        return "buffer"  # a causal mask, as GPT code bases call it
    floating = ref.dtype in FLOATING or ref.dtype in _COMPLEX
    packed = ref.dtype == "uint8" and key.endswith(".weight")  # 4-bit quantised weights
    return "parameter" if (floating or packed) and not _BUFFER.search(key) else "buffer"
