"""Machine code of our kernels: compiled by numba once, kept as object files, run without numba.

Loading numba takes half a second and serves for nothing once a kernel is compiled.  So what it made
is kept in a file of its own for each kernel and types of arguments; later processes load that
through llvmlite, the binding to LLVM that numba itself stands on, and call it through ctypes, which
leaves the interpreter to other threads meanwhile.

The name of a file holds everything that its content depends on: the sources of the kernel, the
version of llvmlite, and the processor.  Its first bytes are a digest of the rest.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import __version__ as llvm_version
from numpy.typing import NDArray

Argument = NDArray[Any] | np.generic | int | float

#: Modules whose functions make code of a kernel.
_BUILDERS = ("ckptools.stats.jit", "ckptools.stats.building")
_SCALARS: dict[str, Any] = {
    "i4": ctypes.c_int32,
    "i8": ctypes.c_int64,
    "u1": ctypes.c_uint8,
    "u2": ctypes.c_uint16,
    "u4": ctypes.c_uint32,
    "u8": ctypes.c_uint64,
    "f4": ctypes.c_float,
    "f8": ctypes.c_double,
}
_BYTE: Callable[[Any], Any] = ctypes.c_char.from_buffer
_DIGEST = hashlib.sha256().digest_size
_lock = threading.RLock()
_compiling = ContextVar("_compiling", default=True)


@contextmanager
def compiling(allowed: bool) -> Iterator[None]:
    """Let kernels that are not compiled yet be compiled, or else raise RuntimeError."""
    before = _compiling.set(allowed)
    try:
        yield
    finally:
        _compiling.reset(before)


def cache_folder() -> Path:
    """Return where machine code is kept: NUMBA_CACHE_DIR, else below the user's cache folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ckptools" / "numba"


class Kernel:
    """A function of a module of kernels, compiled for each combination of types it is called with.

    Arrays are passed as pointers to their first element, so they must be contiguous; what a kernel
    needs to know of their lengths it takes as a number.

    Parameters
    ----------
    module, name: where the function is; the module is imported only to compile it.
    constants: modules from which it takes constants.
    """

    def __init__(self, module: str, name: str, constants: tuple[str, ...] = ()) -> None:
        self._module, self._name = module, name
        self._sources = (module, *constants)
        self._known: dict[tuple[str, ...], Callable[..., None]] = {}

    def __call__(self, *arguments: Argument) -> None:
        """Run it."""
        types, passed = _taken(arguments)
        call = self._known.get(types) or self._load(types)
        call(*passed)

    def prepare(self, *arguments: Argument) -> None:
        """Load or compile it for arguments of these types.

        Raises
        ------
        ImportError, OSError, RuntimeError: it cannot be compiled, or not be kept.
        """
        self._load(_taken(arguments)[0])

    def _load(self, types: tuple[str, ...]) -> Callable[..., None]:
        with _lock:
            if types not in self._known:
                self._known[types] = self._made(types)
            return self._known[types]

    def _made(self, types: tuple[str, ...]) -> Callable[..., None]:
        if os.environ.get("NUMBA_DISABLE_JIT") == "1":
            return self._interpreted(types)
        name = f"{self._name}_{self._key(types)[:40]}"
        path = cache_folder() / f"{name}.o"
        code = _read(path)
        if code is None:
            code = self._compiled(types, name)
            _write(path, code)
        address = _machine().load(code, name)
        return ctypes.CFUNCTYPE(None, *(_passed_as(one) for one in types))(address)

    def _key(self, types: tuple[str, ...]) -> str:
        key = hashlib.sha256(repr((types, llvm_version, _processor())).encode())
        for module in (*self._sources, *_BUILDERS):
            key.update(_source(module))
        return key.hexdigest()

    @cached_property
    def _function(self) -> Callable[..., None]:
        found: Callable[..., None] = getattr(importlib.import_module(self._module), self._name)
        return found

    def _compiled(self, types: tuple[str, ...], name: str) -> bytes:
        if not _compiling.get():
            raise RuntimeError(f"{self._name} is not compiled yet")
        _check_writable(cache_folder())
        building = importlib.import_module("ckptools.stats.building")
        code: bytes = building.build(self._function, types, name, _machine().target)
        return code

    def _interpreted(self, types: tuple[str, ...]) -> Callable[..., None]:
        """Return the function itself, for looking into it; pointers are those of ctypes."""
        function = self._function

        def call(*arguments: Any) -> None:
            given = zip(types, arguments, strict=True)
            function(*(_pointer(one, value) if one[0] == "*" else value for one, value in given))

        return call


#: kind and bytes of a number by numpy's character of its type; several may be alike
_NUMBERS = {char: np.dtype(char).str[1:] for char in "bBhHiIlLqQfd"}
#: the same of arrays of them, after a star
_ARRAYS = {char: "*" + one for char, one in _NUMBERS.items()}


def _taken(arguments: tuple[Argument, ...]) -> tuple[tuple[str, ...], list[Any]]:
    """Return the types of arguments, and what ctypes takes for them; each call comes by here."""
    types: list[str] = []
    passed: list[Any] = []
    for one in arguments:
        if isinstance(one, np.ndarray):
            types.append(_ARRAYS[one.dtype.char])
            # a view of its buffer costs a third of asking for its address, but is not always there
            direct = one.size and one.flags.writeable
            passed.append(ctypes.byref(_BYTE(one)) if direct else one.ctypes.data)
        elif isinstance(one, np.generic):
            types.append(_NUMBERS[one.dtype.char])
            passed.append(one.item())
        else:
            types.append("f8" if isinstance(one, float) else "i8")
            passed.append(one)
    return tuple(types), passed


def _passed_as(one: str) -> Any:
    return ctypes.c_void_p if one[0] == "*" else _SCALARS[one]


def _pointer(one: str, place: Any) -> Any:
    return ctypes.cast(place, ctypes.POINTER(_SCALARS[one[1:]]))


class _Machine:
    """The processor, and the code loaded for it; both live as long as the process."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        name, features = _processor()
        self.target = llvm.Target.from_default_triple().create_target_machine(
            cpu=name, features=features, opt=3, codemodel="jitdefault", jit=True
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self.target)

    def load(self, code: bytes, name: str) -> int:
        """Return the address of the function of this name in an object file."""
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address: int = self._engine.get_function_address(name)
        if not address:
            raise RuntimeError(f"the machine code of {name} could not be loaded")
        return address


@cache
def _machine() -> _Machine:
    return _Machine()


@cache
def _processor() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@cache
def _source(module: str) -> bytes:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(f"{module} is not there")
    return Path(spec.origin).read_bytes()


def _check_writable(folder: Path) -> None:
    """Raise OSError where nothing can be kept: compiling in every process would cost too much."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _read(path: Path) -> bytes | None:
    """Return the machine code in a file of this user, None where it is missing or damaged."""
    with suppress(OSError):
        with path.open("rb") as file:
            if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            content = file.read()
        code = content[_DIGEST:]
        if hashlib.sha256(code).digest() == content[:_DIGEST]:
            return code
    return None


def _write(path: Path, code: bytes) -> None:
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        file.write(hashlib.sha256(code).digest() + code)
    os.replace(part, path)
