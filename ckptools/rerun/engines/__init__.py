"""Engines: where trials are run.  One file each; an engine is a function ``run(specs, workers)``.

It yields every specification with its trial, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ckptools.registry import Registry
from ckptools.rerun.trials import TrialSpec
from ckptools.types.verdict import Trial

Run = Callable[[Sequence[TrialSpec], int | None], Iterator[tuple[TrialSpec, Trial]]]

engines: Registry[Run] = Registry(
    "engine", package="ckptools.rerun.engines", group="ckptools.engines"
)
