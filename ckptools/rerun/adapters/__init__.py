"""Adapters: what people have instead of a task, made into one.

An adapter is one file here that registers a function ``adapt(made, again)``: ``made`` is what the
user's factory returned, ``again`` makes it once more, and the answer is a task, or None for what
it does not know.  None of them imports the framework it is for: an object of a framework that was
never imported cannot be there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ckptools.registry import Registry

Adapt = Callable[[Any, Callable[[], Any]], Any]

adapters: Registry[Adapt] = Registry(
    "adapter", package="ckptools.rerun.adapters", group="ckptools.adapters"
)


def adapted(found: Sequence[Any], settings: Mapping[str, Any]) -> Any:
    """Return the task that one factory, or a pair of plain functions, makes with the settings."""
    if len(found) > 1:
        from ckptools.rerun.adapters.functions import FunctionTask

        return FunctionTask(found, settings)

    def again() -> Any:
        return found[0](dict(settings))

    made = again()
    if callable(getattr(made, "build", None)):
        return made
    for adapt in adapters:
        task = adapt(made, again)
        if task is not None:
            return task
    return made


def is_a(made: Any, name: str, *packages: str) -> bool:
    """Return whether an object's class, or one that it inherits from, is a package's ``name``."""
    return any(
        one.__name__ == name and one.__module__.partition(".")[0] in packages
        for one in type(made).__mro__
    )
