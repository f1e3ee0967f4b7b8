from __future__ import annotations

from dataclasses import replace
from functools import partial

from ckptools.types.checkpoint import RunState
from ckptools.types.evidence import Evidence
from tests.builders.resumes import evidence

BATCHES = "loops.epoch_loop.batch_progress"
AMID = {f"{BATCHES}.current.completed": 5.0, f"{BATCHES}.is_last_batch": 0.0}
ENDED = {f"{BATCHES}.current.completed": 11.0, f"{BATCHES}.is_last_batch": 1.0}


def with_run(earlier: RunState | None = None, **fields: object) -> Evidence:
    whole = evidence(earlier=4)
    checkpoint, older = whole.checkpoint, whole.earlier[0].checkpoint
    assert checkpoint is not None
    run = replace(checkpoint.run, **fields)
    before = () if earlier is None else (Evidence(replace(older, run=earlier)),)
    return Evidence(replace(checkpoint, run=run), earlier=before)


FIRES_ON = {
    "lost_since": partial(with_run, RunState(has_rng=True)),
    "sampler_lost_since": partial(with_run, RunState(has_sampler=True), has_rng=True),
    "sampler_alone": partial(with_run, has_sampler=True),
    "amid_an_epoch": partial(with_run, counters=AMID),
}
SILENT_ON = {
    "neither": evidence,
    "both": partial(with_run, RunState(has_rng=True), has_rng=True, has_sampler=True),
    "after_an_epoch": partial(with_run, counters=ENDED),
}
