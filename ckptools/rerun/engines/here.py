"""The simplest engine: one trial after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ckptools.rerun.arms import ArmPlan
from ckptools.rerun.engines import engines
from ckptools.rerun.trials import Bencher, Run, TrialSpec
from ckptools.types.verdict import Trial


@engines.register("here")
@contextmanager
def here(workers: int | None = None, plans: Sequence[ArmPlan] = ()) -> Iterator[Run]:
    """Run everything in this process, whatever ``workers`` and ``plans`` ask for."""
    bench = Bencher()

    def run(specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
        return ((spec, bench(spec)) for spec in specs)

    yield run
