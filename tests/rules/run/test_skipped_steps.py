from __future__ import annotations

from functools import partial
from typing import Any

from ckptools.rules import judge
from tests.builders.resumes import SCALER, Fault, edited, evidence, lightning, setting, together


def scaler(**values: Any) -> Fault:
    return setting("scaler", SCALER | values)


def attempted(steps: int) -> Fault:
    return together(scaler(), edited("scheduler", last_epoch=steps))


FIRES_ON = {
    "lightnings_loops": partial(lightning, counted=70, scaler=SCALER),
    "skipped": partial(evidence, attempted(70)),
    "few_skipped": partial(evidence, attempted(62)),
    "a_collapsed_scale": partial(evidence, scaler(scale=0.0625)),
    "an_infinite_scale": partial(evidence, scaler(scale=float("inf"))),
    "a_counter_beyond": partial(evidence, scaler(_growth_tracker=2000)),
}
SILENT_ON = {
    "lightning": partial(lightning, scaler=SCALER),
    "lightning_without_a_scaler": partial(lightning, counted=70),
    "a_healthy_epoch": evidence,
    "a_scaler": partial(evidence, scaler()),
    "no_scaler": partial(evidence, edited("scheduler", last_epoch=70)),
    "accumulated": partial(evidence, attempted(120)),
    "one_apart": partial(evidence, attempted(61)),
    "switched_off": partial(evidence, setting("scaler", {})),
}


def test_says_how_many() -> None:
    (many,) = judge(evidence(attempted(80)), select=["RUN107"]).findings
    assert many.evidence == {"skipped": 20, "attempted": 80, "taken": 60, "halvings": 6}
    assert many.severity == "warning"
    for few in (62, 70):
        (finding,) = judge(evidence(attempted(few)), select=["RUN107"]).findings
        assert finding.severity == "note"
