"""Plain values that pickles spell as calls: bytes, sets, sizes, numpy scalars and arrays."""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import prod
from typing import Any

from ckptools.sources.memory import MemorySource
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef
from ckptools.types.tree import Global, Instance, SetNode

#: No tensor library takes more dimensions.
MOST_DIMENSIONS = 64


class Unfit(ValueError):
    """A call whose arguments cannot be what its name says; ``kind`` names the fault."""

    def __init__(self, message: str, kind: str = "malformed-object") -> None:
        super().__init__(message)
        self.kind = kind


def global_name(node: Any) -> str | None:
    """Return ``module.name`` of a global, None for any other node (which may nest endlessly)."""
    return f"{node.module}.{node.name}" if type(node) is Global else None


def called(node: Any) -> str | None:
    """Return the name of what an inert call would call, or None."""
    return global_name(node.constructor) if type(node) is Instance else None


def is_size(value: Any) -> bool:
    """Return whether ``value`` is a whole number that a size or a position can be."""
    return type(value) is int and 0 <= value < 1 << 63


def sizes(node: Any) -> tuple[int, ...]:
    """Return a tuple of sizes or strides given as tuple, list or ``torch.Size``."""
    if called(node) == "torch.Size":
        if type(node.args) is not tuple or len(node.args) != 1:
            raise Unfit("a size without numbers")
        node = node.args[0]
    if type(node) not in (tuple, list):
        raise Unfit("sizes that are no tuple")
    if len(node) > MOST_DIMENSIONS:
        raise Unfit(f"{len(node):,} dimensions")
    for number in node:
        if type(number) is not int:
            raise Unfit("a size that is no whole number")
        if not 0 <= number < 1 << 63:
            raise Unfit("a negative or impossible size", "tensor-out-of-bounds")
    return tuple(node)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


# -- bytes and collections -------------------------------------------------------------------


def raw_bytes(node: Any, cache: Cache) -> bytes:
    """Return bytes, also where protocol 2 spells them as encoded text.

    One text may stand behind many calls; it is encoded once.
    """
    if type(node) is bytes:
        return node
    if called(node) in _BYTES:
        node = _text(node.args)
    if type(node) not in (str, bytearray):
        raise Unfit("data that is no bytes")
    if id(node) not in cache:
        raw = node.encode("latin-1") if type(node) is str else bytes(node)
        cache[id(node)] = (node, raw)
    return cache[id(node)][1]


#: Encoded texts by identity; the text is kept, so that its identity stays taken.
Cache = dict[int, tuple[Any, bytes]]
_BYTES = frozenset(
    f"{module}.{name}"
    for module, name in (
        ("_codecs", "encode"),
        ("builtins", "bytes"),
        ("__builtin__", "bytes"),
        ("builtins", "bytearray"),
        ("__builtin__", "bytearray"),
    )
)


def _text(args: Any) -> str:
    """Return the text of ``encode(text, 'latin1')``."""
    if args == ():
        return ""
    if type(args) is not tuple or len(args) != 2 or type(args[0]) is not str:
        raise Unfit("bytes that are encoded in an unknown way")
    if args[1] not in ("latin1", "latin-1"):
        raise Unfit("bytes that are encoded in an unknown way")
    return args[0]


def _encoded(instance: Instance, cache: Cache) -> bytes:
    return raw_bytes(instance, cache)


def _bytearray(instance: Instance, cache: Cache) -> bytes:
    args = instance.args
    if args == ():
        return b""
    if type(args) is not tuple or type(args[0]) is int:
        raise Unfit("a buffer that is made of a number")
    return raw_bytes(args[0], cache) if len(args) == 1 else _encoded(instance, cache)


def _set(instance: Instance, cache: Cache) -> SetNode:
    frozen = instance.constructor.name == "frozenset"
    args = instance.args
    if args == ():
        return SetNode([], frozen)
    if type(args) is not tuple or len(args) != 1 or type(args[0]) is not list:
        raise Unfit("a set that is made of something else than a list")
    return SetNode(args[0], frozen)  # not copied: many sets may share one list


def _complex(instance: Instance, cache: Cache) -> complex:
    args = instance.args
    if type(args) is not tuple or not all(type(part) in (int, float) for part in args):
        raise Unfit("a complex number that is made of something else than numbers")
    return complex(*args[:2])


def _size(instance: Instance, cache: Cache) -> tuple[int, ...]:
    return sizes(instance)


def _device(instance: Instance, cache: Cache) -> str:
    args = instance.args
    if type(args) is not tuple or not all(type(part) in (str, int) for part in args):
        raise Unfit("a device that is made of something else than a name")
    return ":".join(map(str, args))


# -- numpy -----------------------------------------------------------------------------------

_NUMPY_CODES = {
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
}
_STRUCT_CODES = {
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "bool": "?",
}


def numpy_dtype(node: Any) -> tuple[str, str] | None:
    """Return (torch's name, byte order) of a numpy dtype, or None where torch has none."""
    if type(node) is Global:
        return (node.name, "little") if node.name in ITEMSIZE else None
    if called(node) != "numpy.dtype":
        return None
    args = node.args
    if type(args) is not tuple or not args:
        raise Unfit("a dtype without a name")
    if type(args[0]) is Global:
        name: str | None = args[0].name if args[0].name in ITEMSIZE else None
    else:
        name = _NUMPY_CODES.get(args[0].lstrip("<=|>")) if type(args[0]) is str else None
    if name is None:
        return None
    return name, "big" if _order_mark(node) == ">" else "little"


def _order_mark(dtype: Instance) -> str:
    """Return the byte-order mark, which the state gives (or the code of a bare dtype)."""
    state = dtype.state
    if type(state) is tuple and len(state) > 1 and type(state[1]) is str:
        return state[1]
    code = dtype.args[0]
    return code[:1] if type(code) is str else "<"


def _numpy_scalar(instance: Instance, cache: Cache) -> Any:
    """Return the Python number that a numpy scalar holds; others stay inert."""
    args = instance.args
    if type(args) is not tuple or len(args) != 2:
        raise Unfit("a numpy scalar without value")
    kind = numpy_dtype(args[0])
    if kind is None:
        return None
    name, order = kind
    raw = raw_bytes(args[1], cache)
    if len(raw) != ITEMSIZE[name]:
        raise Unfit(f"a numpy scalar of type {name} with {len(raw)} bytes")
    mark = ">" if order == "big" else "<"
    if name in _STRUCT_CODES:
        return struct.unpack(mark + _STRUCT_CODES[name], raw)[0]
    if name in ("complex64", "complex128"):
        half = "f" if name == "complex64" else "d"
        return complex(*struct.unpack(mark + 2 * half, raw))
    return None


def _numpy_array(instance: Instance, cache: Cache) -> TensorRef | None:
    """Return ``_reconstruct`` with its state (version, shape, dtype, fortran, data)."""
    state = instance.state
    if type(state) is not tuple or len(state) not in (4, 5):
        return None  # an array before its state, or a subclass with another one
    shape, dtype, fortran, data = state[-4:]
    if type(data) is list:
        return None  # an array of Python objects
    return _array(dtype, shape, bool(fortran), data, cache)


def _numpy_frombuffer(instance: Instance, cache: Cache) -> TensorRef | None:
    """Return ``_frombuffer(data, dtype, shape, order)``, which protocol 5 uses."""
    args = instance.args
    if type(args) is not tuple or len(args) != 4:
        raise Unfit("a numpy array without its four arguments")
    return _array(args[1], args[2], args[3] == "F", args[0], cache)


def _array(dtype: Any, shape: Any, fortran: bool, data: Any, cache: Cache) -> TensorRef | None:
    kind = numpy_dtype(dtype)
    if kind is None:
        return None
    name, order = kind
    size = sizes(shape)
    raw = raw_bytes(data, cache)
    if prod(size) * ITEMSIZE[name] != len(raw):
        raise Unfit(f"a numpy array of {prod(size):,} elements with {len(raw):,} bytes")
    strides = row_major(size)
    if fortran:
        strides = tuple(reversed(row_major(tuple(reversed(size)))))
    source = MemorySource("an array inside the pickle", raw)
    storage = Storage("(inside the pickle)", source, 0, len(raw), len(raw), order)
    return TensorRef(name, size, strides, 0, storage)


#: What is recognised, by exact name.
PLAIN: dict[str, Callable[[Instance, Cache], Any]] = {
    "_codecs.encode": _encoded,
    "builtins.bytearray": _bytearray,
    "__builtin__.bytearray": _bytearray,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "builtins.frozenset": _set,
    "__builtin__.frozenset": _set,
    "builtins.complex": _complex,
    "__builtin__.complex": _complex,
    "builtins.bytes": _encoded,
    "__builtin__.bytes": _encoded,
    "torch.Size": _size,
    "torch.device": _device,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": _numpy_array,
    "numpy._core.multiarray._reconstruct": _numpy_array,
    "numpy.core.numeric._frombuffer": _numpy_frombuffer,
    "numpy._core.numeric._frombuffer": _numpy_frombuffer,
}
