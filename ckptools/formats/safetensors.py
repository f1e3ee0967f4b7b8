"""safetensors: a length, a JSON header, and the tensors' bytes one after the other.

The header is read here and not by the safetensors library, because a file that contradicts
itself shall be listed with its faults, and a truncated one as far as it goes; the library refuses
both.  The rules are the library's: offsets cover the data exactly, in any order, without
overlap, hole or remainder.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ckptools.errors import CorruptFile
from ckptools.formats.fault_list import FaultList
from ckptools.formats.json_text import MAX_BYTES, parse
from ckptools.formats.registry import formats
from ckptools.formats.view_budget import ViewBudget
from ckptools.types.container import Container
from ckptools.types.source import Source
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef
from ckptools.types.tree import Pairs
from ckptools.types.wording import say

#: torch's dtype name by the header's
DTYPES: dict[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}

#: bits of one element of the dtypes that are smaller than a byte
SUB_BYTE = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}

#: more dimensions than any tensor library takes
MAX_DIMENSIONS = 64

METADATA = "__metadata__"


class Safetensors:
    """The reader of safetensors files."""

    order = 20

    def sniff(self, source: Source) -> int:
        """Return 2 for a length and a JSON object, 1 for what might be a truncated header."""
        if source.size < 10:
            return 0
        head = source.read_at(0, min(source.size, 64))
        length = int.from_bytes(head[:8], "little")
        first = head[8:].lstrip(b" \t\r\n")[:2]
        if 2 <= length <= source.size - 8:
            return {b"{": 2, b"[": 1}.get(first[:1], 0)
        return int(first in (b'{"', b"{}") and length < 1 << 40)

    def open(self, path: str, source: Source) -> Container:
        """Return the tensors, with everything that is wrong with the header.

        Raises
        ------
        CorruptFile: the header cannot be read at all.
        """
        faults = FaultList()
        start, header = _header(source)
        metadata, declared = _split(header, faults)
        tensors = [
            entry
            for name, value in declared
            if (entry := _entry(name, value, start, source, faults)) is not None
        ]
        _check_coverage(tensors, source.size - start, faults)
        budget = ViewBudget(entry.tensor for entry in tensors)
        budget.report(faults)
        return Container(
            path=path,
            format="safetensors",
            size_bytes=source.size,
            root=Pairs([(entry.name, budget.limited(entry.tensor)) for entry in tensors]),
            source=source,
            faults=faults.faults(),
            metadata={"header_bytes": start, "metadata": metadata},
            not_judged=_not_judged(declared, tensors),
        )


formats.add("safetensors", Safetensors())


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor with the range of the data section that it claims."""

    name: str
    begin: int
    end: int
    tensor: TensorRef


def _header(source: Source) -> tuple[int, Pairs]:
    """Return where the data starts, and the header's pairs."""
    length = int.from_bytes(source.read_at(0, 8), "little")
    if length > source.size - 8:
        raise CorruptFile(
            f"the header has {length} bytes, the file only {source.size - 8} after it began",
            where=source.name,
            next="the file was cut inside its header or is no safetensors file; fetch it again",
        )
    if length > MAX_BYTES:
        raise CorruptFile(f"a header of {length} bytes (limit {MAX_BYTES})", where=source.name)
    header = parse(source.read_at(8, length), source.name, objects="pairs")
    if not isinstance(header, Pairs):
        raise CorruptFile("the header is not a JSON object", where=source.name)
    return 8 + length, header


def _split(header: Pairs, faults: FaultList) -> tuple[dict[str, str], list[tuple[str, Any]]]:
    """Return the metadata and the tensor entries, reporting duplicate keys."""
    metadata: dict[str, str] = {}
    declared: list[tuple[str, Any]] = []
    seen: set[str] = set()
    for name, value in header.entries:
        if name in seen:
            faults.add("duplicate-key", name, say("the header names it more than once"))
        seen.add(name)
        if name == METADATA:
            metadata.update(_text_pairs(value, faults))
        else:
            declared.append((name, value))
    return metadata, declared


def _text_pairs(value: Any, faults: FaultList) -> dict[str, str]:
    """Return the metadata's text pairs; anything else in it is reported."""
    if not isinstance(value, Pairs):
        faults.add("metadata-not-text", METADATA, say("the metadata is not an object"))
        return {}
    found: dict[str, str] = {}
    for key, text in value.entries:
        if not isinstance(text, str):
            faults.add(
                "metadata-not-text", METADATA, say("the value of {key!r} is not a text", key=key)
            )
        elif key in found:
            faults.add(
                "duplicate-key", METADATA, say("the metadata names {key!r} more than once", key=key)
            )
        else:
            found[key] = text
    return found


def _entry(name: str, value: Any, start: int, source: Source, faults: FaultList) -> _Entry | None:
    """Return one tensor, or None (reported) when its description means nothing."""
    described = _described(value)
    if isinstance(described, str):
        faults.add("malformed-entry", name, described)
        return None
    dtype, shape, begin, end = described
    problem = _impossible(dtype, shape, begin, end)
    if problem:
        faults.add("tensor-out-of-bounds", name, problem, begin=begin, end=end)
        return None
    available = min(max(source.size - start - begin, 0), end - begin)
    storage = Storage(name, source, start + begin, end - begin, available)
    if available < end - begin:
        faults.add(
            "truncated",
            name,
            say(
                "{beyond} of its {size} bytes lie past the end of the file",
                beyond=end - begin - available,
                size=end - begin,
            ),
            available=available,
        )
    return _Entry(name, begin, end, _tensor(dtype, shape, storage, faults, name))


def _described(value: Any) -> tuple[str, tuple[int, ...], int, int] | str:
    """Return dtype, shape, begin and end of one entry, or what is wrong with it."""
    if not isinstance(value, Pairs):
        return say("its entry is not an object")
    fields = dict(value.entries)
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str):
        return say("its dtype is not a text")
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        return say("its shape is not a list of sizes")
    if len(shape) > MAX_DIMENSIONS:
        return say("it has {number} dimensions", number=len(shape))
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        return say("its data_offsets are not two positions")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _is_count(value: object) -> bool:
    """Return whether ``value`` is a JSON integer that a size or a position can be."""
    return type(value) is int and 0 <= value < 1 << 63


def _impossible(dtype: str, shape: tuple[int, ...], begin: int, end: int) -> str | None:
    """Return why shape, dtype and range cannot belong together, or None."""
    if end < begin:
        return say("its data ends ({end}) before it begins ({begin})", end=end, begin=begin)
    bits = _bits(dtype)
    if prod(max(size, 1) for size in shape) >= 1 << 60:
        return say("the shape {shape} is larger than any memory", shape=list(shape))
    if bits is not None and prod(shape) * bits != (end - begin) * 8:
        needed = -(-prod(shape) * bits // 8)
        return say(
            "{dtype} of shape {shape} needs {needed} bytes, its range has {size}",
            dtype=dtype,
            shape=list(shape),
            needed=needed,
            size=end - begin,
        )
    return None


def _bits(dtype: str) -> int | None:
    """Return the bits of one element, or None for a dtype nobody knows."""
    if dtype in DTYPES:
        return 8 * ITEMSIZE[DTYPES[dtype]]
    return SUB_BYTE.get(dtype)


def _tensor(
    dtype: str, shape: tuple[int, ...], storage: Storage, faults: FaultList, name: str
) -> TensorRef:
    """Return the tensor; what has no whole bytes per element is listed as raw bytes."""
    if dtype in DTYPES:
        return TensorRef(DTYPES[dtype], shape, _row_major(shape), storage=storage)
    if dtype == "F4" and shape and shape[-1] % 2 == 0:
        packed = (*shape[:-1], shape[-1] // 2)
        return TensorRef(
            "float4_e2m1fn_x2",
            packed,
            _row_major(packed),
            storage=storage,
            unreadable=say("4-bit numbers, two in a byte"),
        )
    if dtype not in SUB_BYTE:
        faults.add(
            "unknown-dtype",
            name,
            say("dtype {dtype!r} is not known", dtype=dtype[:40]),
            scope="object",
        )
    return TensorRef(
        "bits8",
        (storage.nbytes,),
        (1,),
        storage=storage,
        unreadable=say(
            "{dtype} of shape {shape}, listed as bytes", dtype=dtype[:40], shape=list(shape)
        ),
    )


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor, in elements."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _check_coverage(tensors: list[_Entry], length: int, faults: FaultList) -> None:
    """Report overlaps, holes and bytes after the last tensor."""
    reached, last = 0, "the header"
    for entry in sorted(tensors, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin < reached and entry.end > entry.begin:
            faults.add("overlapping-data", entry.name, say("shares bytes with {last}", last=last))
        elif entry.begin > reached:
            faults.add(
                "hole",
                entry.name,
                say("{gap} bytes before it belong to no tensor", gap=entry.begin - reached),
                bytes=entry.begin - reached,
            )
        if entry.end > reached:
            reached, last = entry.end, entry.name
    if length > reached:
        faults.add(
            "trailing-bytes",
            "end of file",
            say("{rest} bytes after the last tensor belong to nothing", rest=length - reached),
            bytes=length - reached,
        )


def _not_judged(declared: list[tuple[str, Any]], tensors: list[_Entry]) -> tuple[str, ...]:
    """Return the tensors that cannot be read, or not as a whole."""
    listed = {entry.name for entry in tensors}
    malformed = (
        say("{name}: its entry contradicts itself", name=name)
        for name, _ in declared
        if name not in listed
    )
    cut = (
        say("{name}: bytes are missing at the end of the file", name=entry.name)
        for entry in tensors
        if entry.tensor.storage is not None and not entry.tensor.storage.whole
    )
    return (*malformed, *cut)
