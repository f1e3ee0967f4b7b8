from __future__ import annotations

from functools import partial

from tests.builders.resumes import SCALER, edited, evidence, lightning, setting, together
from tests.builders.small_run import State


def without(state: State) -> None:
    del state["scheduler"]


FIRES_ON = {
    "lightnings_loops": partial(lightning, scheduled=50),
    "restarted": partial(evidence, edited("scheduler", last_epoch=3)),
    "far_ahead": partial(
        evidence, together(edited("scheduler", last_epoch=80), setting("epoch", None))
    ),
}
SILENT_ON = {
    "lightning": lightning,
    "lightning_by_hand": partial(lightning, scheduled=0),
    "a_healthy_epoch": evidence,
    "no_scheduler": partial(evidence, without),
    "by_epoch": partial(evidence, edited("scheduler", last_epoch=5)),
    "one_ahead": partial(evidence, edited("scheduler", last_epoch=61)),
    "ten_times_an_epoch": partial(evidence, edited("scheduler", last_epoch=50)),
    "by_batch": partial(evidence, edited("scheduler", last_epoch=240)),
    "skipped": partial(
        evidence, together(edited("scheduler", last_epoch=70), setting("scaler", dict(SCALER)))
    ),
}
