"""The simplest engine: one trial after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ckptools.rerun.engines import engines
from ckptools.rerun.trials import Bencher, Run, TrialSpec
from ckptools.types.verdict import Trial


@engines.register("here")
@contextmanager
def here(workers: int | None = None) -> Iterator[Run]:
    """Run everything in this process; ``workers`` means nothing."""
    bench = Bencher()

    def run(specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
        return ((spec, bench(spec)) for spec in specs)

    yield run
