"""The table of contents of a distributed checkpoint (``.metadata``), a pickle by itself.

The format is not supported; but a table that points outside of its folder, or at more bytes than
there are, is told when somebody opens it.  Nothing that it points at is opened.
"""

from __future__ import annotations

import os
from math import prod
from typing import Any

from ckptools.formats.fault_list import FaultList
from ckptools.formats.pickle_machine import PickleResult
from ckptools.formats.plain_values import is_size
from ckptools.types.tree import Instance, class_name, fields, unwrap

METADATA = "torch.distributed.checkpoint.metadata.Metadata"
_PLACE = "torch.distributed.checkpoint.filesystem._StorageInfo"
_TENSOR = "torch.distributed.checkpoint.metadata.TensorStorageMetadata"
#: no element takes fewer bits than this share of a byte
_PER_BYTE = 4


def is_dcp_metadata(result: PickleResult) -> bool:
    """Return whether the pickle is such a table."""
    return class_name(result.root) == METADATA


def check(result: PickleResult, path: str, faults: FaultList) -> None:
    """Report places outside of the folder or of their file, and tensors larger than all of them."""
    folder = os.path.dirname(path)
    total = 0
    for instance in _of_class(result, _PLACE):
        total += _check_place(instance, folder, faults)
    for instance in _of_class(result, _TENSOR):
        size = unwrap(_attributes(instance).get("size"))
        if not isinstance(size, tuple) or not all(map(is_size, size)):
            faults.add("malformed-object", "state_dict_metadata", "a tensor without proper size")
        elif prod(size) > total * _PER_BYTE:
            message = f"a tensor of {prod(size):,} elements, the files hold {total:,} bytes"
            faults.add("tensor-out-of-bounds", "state_dict_metadata", message)


def _of_class(result: PickleResult, name: str) -> list[Instance]:
    return [instance for instance in result.instances if class_name(instance) == name]


def _attributes(instance: Instance) -> dict[str, Any]:
    return {key: value for key, value in fields(instance) or [] if type(key) is str}


def _check_place(instance: Instance, folder: str, faults: FaultList) -> int:
    """Check one slice of a file and return its length."""
    said = _attributes(instance)
    name, offset, length = (said.get(key) for key in ("relative_path", "offset", "length"))
    if type(name) is not str or name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
        faults.add("path-traversal", ascii(name)[:80], "not the plain name of a file beside it")
        return 0
    if type(offset) is not int or type(length) is not int or min(offset, length) < 0:
        faults.add("malformed-object", ascii(name)[:80], "a slice that is none")
        return 0
    there = _size(os.path.join(folder, name))
    if there is None:
        faults.add("missing-shard", ascii(name)[:80], "the file is not there")
    elif offset + length > there:
        message = f"a slice to byte {offset + length:,} of a file of {there:,} bytes"
        faults.add("record-outside", ascii(name)[:80], message)
    return length


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None
