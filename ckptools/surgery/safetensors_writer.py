"""A safetensors file, streamed: the header is written first, then tensor after tensor.

The library's own ``save_file`` wants every tensor in memory at once; this one holds a chunk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from ckptools.errors import OperationError

#: torch's dtype names in the words of the safetensors header
DTYPES: dict[str, str] = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "complex64": "C64",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to come: its name, torch dtype, shape and length in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def header(entries: Iterable[Entry], metadata: dict[str, str]) -> bytes:
    """Return the length field and the JSON header, padded so that the data starts 8-aligned.

    Raises OperationError for a dtype that the format lacks or a name that comes twice.
    """
    described: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for entry in entries:
        if entry.dtype not in DTYPES:
            raise OperationError(f"safetensors has no {entry.dtype}", where=entry.name)
        if entry.name in described:
            raise OperationError("two tensors of this name", where=entry.name)
        end = position + entry.nbytes
        described[entry.name] = {
            "dtype": DTYPES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(
    file: BinaryIO,
    tensors: Iterable[tuple[Entry, Iterable[bytes | memoryview]]],
    metadata: dict[str, str],
) -> None:
    """Write all tensors; the payload of each is asked for when its turn comes.

    Raises ValueError when a payload does not have the length that its entry states.
    """
    pairs = list(tensors)
    file.write(header([entry for entry, _ in pairs], metadata))
    for entry, chunks in pairs:
        written = 0
        for chunk in chunks:
            file.write(chunk)
            written += len(chunk)
        if written != entry.nbytes:
            raise ValueError(f"tensor {entry.name}: {written} bytes instead of {entry.nbytes}")
