"""Compile a kernel with numba into an object file that stands alone.

numba gives a C function of the kernel, and LLVM's code of it beside that of everything it calls.
Only the C function is kept visible, so that LLVM can put all into it and drop what handles Python's
errors, which no kernel raises; whatever is left that the object file would need from outside is an
error here and not a crash later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import cfunc, from_dtype, types

#: What every process offers.
_OUTSIDE = frozenset({"memcpy", "memmove", "memset", "sqrt", "sqrtf"})


def build(
    function: Callable[..., None], signature: tuple[str, ...], name: str, target: Any
) -> bytes:
    """Return the object file of ``function``, called ``name`` there.

    Parameters
    ----------
    signature: types of the arguments as in :mod:`ckptools.stats.machine`.
    target: LLVM's target machine.

    Raises
    ------
    RuntimeError: the code needs something that only a process with numba has.
    """
    made = cfunc(types.void(*map(_numba_type, signature)), error_model="numpy")(function)
    code = llvm.parse_assembly(made.inspect_llvm())
    for one in code.functions:
        if one.name == made.native_name:
            one.name = name
        elif not one.is_declaration:
            one.linkage = "internal"
    passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(code, passes)
    missing = [one.name for one in code.functions if one.is_declaration and not _known(one.name)]
    if missing:
        raise RuntimeError(f"{function.__name__} needs {', '.join(missing)}")
    found: bytes = target.emit_object(code)
    return found


def _known(name: str) -> bool:
    return name.startswith("llvm.") or name in _OUTSIDE


def _numba_type(one: str) -> Any:
    number = from_dtype(np.dtype(one.lstrip("*")))
    return types.CPointer(number) if one[0] == "*" else number
