"""Grades for the names that a pickle would import: known, unknown or dangerous.

The grade is a report and never the safety: the machine imports nothing, whatever its name.
A name is *known* only by its exact spelling; *dangerous* are names that execute, open or fetch
something, names with a dot (they walk out of a module), and functions of the standard library that
are not known to be harmless.  Everything else is *unknown*, such as the classes of a project.
"""

from __future__ import annotations

import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import Any

from ckptools.formats.global_names import (
    DANGEROUS_MODULES,
    DANGEROUS_NAMES,
    TENSOR_CLASSES,
)
from ckptools.formats.global_names import (
    KNOWN as KNOWN_NAMES,
)
from ckptools.types.tree import Global

KNOWN = "known"
UNKNOWN = "unknown"
DANGEROUS = "dangerous"

_ORDER = (KNOWN, UNKNOWN, DANGEROUS)
#: The longest buffer and the most elements that a call may ask for without being named.
_MOST = 1 << 20


class Calls:
    """The worst grade among the calls of one name whose arguments decide."""

    __slots__ = ("count", "worst")

    def __init__(self) -> None:
        self.count = 0
        self.worst = KNOWN

    def note(self, constructor: Global, args: Any) -> None:
        """Grade one call."""
        self.count += 1
        check = _BY_ARGUMENTS[canonical(constructor.module, constructor.name)]
        found = check(args if type(args) is tuple else (args,))
        self.worst = max(self.worst, found, key=_ORDER.index)


def canonical(module: str, name: str) -> tuple[str, str]:
    """Return today's module and name for a Python 2 one."""
    if (module, name) in NAME_MAPPING:
        return NAME_MAPPING[module, name]
    return IMPORT_MAPPING.get(module, module), name


def depends_on_arguments(module: str, name: str) -> bool:
    """Return whether the grade of a name depends on what it is called with."""
    return canonical(module, name) in _BY_ARGUMENTS


def grade(module: str, name: str, calls: Calls | None = None) -> str:
    """Return the grade of ``module.name``, given its ``calls`` where the arguments decide."""
    if "." in name:
        return DANGEROUS
    key = canonical(module, name)
    if key in _BY_ARGUMENTS and calls is not None and calls.count:
        return calls.worst
    if key in KNOWN_NAMES:
        return KNOWN
    if key in DANGEROUS_NAMES or _in_dangerous_module(key[0]):
        return DANGEROUS
    return _grade_unlisted(*key)


def _in_dangerous_module(module: str) -> bool:
    parts = module.split(".", 8)
    return any(".".join(parts[:end]) in DANGEROUS_MODULES for end in range(1, len(parts) + 1))


def _grade_unlisted(module: str, name: str) -> str:
    """Functions of the standard library are dangerous until known; classes are just unknown."""
    standard = module.split(".", 1)[0] in sys.stdlib_module_names and module != "__main__"
    looks_like_class = name[:1].isupper()
    return DANGEROUS if standard and not looks_like_class else UNKNOWN


# -- calls whose arguments decide --------------------------------------------------------------


def _grade_getattr(args: tuple[Any, ...]) -> str:
    """``getattr(Known, 'Name')`` is how protocol 2 spells a nested class."""
    if len(args) != 2 or type(args[0]) is not Global or type(args[1]) is not str:
        return DANGEROUS
    if not args[1].isidentifier() or args[1].startswith("_"):
        return DANGEROUS
    if not args[0].name[:1].isupper():
        return DANGEROUS
    return grade(args[0].module, args[0].name)


def _grade_encode(args: tuple[Any, ...]) -> str:
    """``_codecs.encode(text, 'latin1')`` is how protocol 2 spells bytes."""
    plain = len(args) == 2 and type(args[0]) is str and args[1] in ("latin1", "latin-1")
    return KNOWN if plain else DANGEROUS


def _grade_size(args: tuple[Any, ...]) -> str:
    """A call with a number allocates as much."""
    huge = any(type(item) is int and not 0 <= item <= _MOST for item in args)
    return DANGEROUS if huge else KNOWN


def _grade_partial(args: tuple[Any, ...]) -> str:
    """The function inside a partial is graded by its own name."""
    return KNOWN if len(args) == 1 and type(args[0]) is Global else DANGEROUS


def _grade_type(args: tuple[Any, ...]) -> str:
    """``type(None)`` names a class; with three arguments it makes one."""
    plain = len(args) == 1 and type(args[0]) in (type(None), Global, tuple, str)
    return KNOWN if plain else DANGEROUS


def _grade_device(args: tuple[Any, ...]) -> str:
    plain = all(type(item) in (str, int) for item in args)
    return KNOWN if plain else DANGEROUS


_BY_ARGUMENTS: dict[tuple[str, str], Callable[[tuple[Any, ...]], str]] = {
    ("builtins", "getattr"): _grade_getattr,
    ("builtins", "bytearray"): _grade_size,
    ("builtins", "type"): _grade_type,
    ("_codecs", "encode"): _grade_encode,
    ("functools", "partial"): _grade_partial,
    ("torch", "device"): _grade_device,
    ("torch", "Tensor"): _grade_size,
    **dict.fromkeys(TENSOR_CLASSES, _grade_size),
}


def worse(one: str, other: str) -> str:
    """Return the worse of two grades."""
    return max(one, other, key=_ORDER.index)
