"""The user's own Python code: the only code this package ever imports on request.

Nothing here reads checkpoints. What is imported is a module or a file that the user named on the
command line, and importing it runs it, as ``python -m`` and ``python file.py`` would.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

#: what the user's code may raise; a subclass of none of these is an interrupt or an exit
FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def user_module(where: str) -> ModuleType:
    """Import a module by its name, or by its file when ``where`` ends in ``.py``.

    A module is looked for beside the working directory too; a file may import its neighbours, as
    a script does.

    Raises
    ------
    ImportError: there is no such module, or it is no valid Python.
    OSError: the file cannot be read.
    """
    try:
        return _of_file(where) if where.endswith(".py") else _of_name(where)
    except SyntaxError as error:
        raise ImportError(str(error)) from error


def _of_name(where: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(where)


def _of_file(where: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(Path(where).stem, where)
    if found is None or found.loader is None:
        raise ImportError(f"{where} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules.setdefault(found.name, module)  # dataclasses look their module up
    folder = str(Path(where).resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    found.loader.exec_module(module)
    return module
