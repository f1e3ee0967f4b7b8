"""The simplest engine: one trial after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptools.rerun.engines import engines
from ckptools.rerun.trials import Bencher, TrialSpec
from ckptools.types.verdict import Trial


@engines.register("here")
def here(
    specs: Sequence[TrialSpec], workers: int | None = None
) -> Iterator[tuple[TrialSpec, Trial]]:
    """Run everything in this process; ``workers`` means nothing."""
    bench = Bencher()
    for spec in specs:
        yield spec, bench(spec)
