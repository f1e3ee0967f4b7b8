"""Engines: where trials are run.  One file each.

An engine is a context manager, ``with engine(workers, plans) as run``: inside it, ``run(specs)``
yields every specification with its trial, in any order, as often as it is called.  Worker processes
live as long as the context.  ``plans`` are arms that will be asked for: what an engine does not
have for them it refuses (SettingsError) before anything is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from ckptools.errors import SettingsError
from ckptools.registry import Registry
from ckptools.rerun.arms import ArmPlan
from ckptools.rerun.trials import Run

Engine = Callable[[int | None, Sequence[ArmPlan]], AbstractContextManager[Run]]

engines: Registry[Engine] = Registry(
    "engine", package="ckptools.rerun.engines", group="ckptools.engines"
)


def engine(name: str) -> Engine:
    """Return an engine by its name; SettingsError lists those that there are."""
    try:
        return engines.get(name)
    except KeyError as error:
        known = ", ".join(engines.names())
        raise SettingsError(f"no engine {name!r}", next=f"one of: {known}") from error
