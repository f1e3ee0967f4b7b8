"""LOG205: cases for the contract of rules."""

from __future__ import annotations

import numpy as np
import pytest

from ckptools.logs.audit import audit
from ckptools.logs.card import Card
from ckptools.logs.schedules import Schedule
from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.training_records import RECORD, evidence_of, log_of

COSINE = Schedule(2e-4, "cosine", warmup=100, steps=1000)
PLANS = {
    "cosine": COSINE,
    "linear": Schedule(1e-3, "linear", warmup=50, steps=1000, final=1e-5),
    "constant": Schedule(1e-4),
    "step": Schedule(1e-2, "step", milestones=(300.0, 600.0)),
}


def run(schedule: Schedule, plan: Schedule | None = None, *, late: int = 0) -> Evidence:
    steps = np.arange(0.0, 1000, 10)
    lines = [
        f"step {int(step)} lr: {rate:.3e} loss: 1.5\n"
        for step, rate in zip(steps, schedule.at(np.maximum(steps - late, 0)), strict=True)
    ]
    return Evidence(log=audit(log_of("".join(lines)), Card(schedules=(plan or schedule,))))


FIRES_ON = {
    "begun again": lambda: run(COSINE, late=400),
    "no warm-up": lambda: run(Schedule(2e-4, "cosine", steps=1000), COSINE),
    "another base": lambda: run(Schedule(1e-4), Schedule(2e-4)),
}
SILENT_ON = {
    **{name: lambda plan=plan: run(plan) for name, plan in PLANS.items()},
    "one step late": lambda: run(COSINE, late=1),
    "no plan": lambda: evidence_of(RECORD),
    "another key": lambda: run(COSINE, Schedule(1.0, key="lr/decoder")),
}


def test_where_it_begins() -> None:
    (finding,) = judge(FIRES_ON["no warm-up"](), select=["LOG205"]).findings
    assert "first at step 0: 0.0002 instead of 0" in finding.message
    assert finding.evidence["off"] > 5


def test_epochs_and_iterations_count_as_steps() -> None:
    text = "".join(
        f"mmdet - INFO - Epoch [{epoch}][{i}/100]\tlr: {1e-4 * (0.1 if epoch > 2 else 1):.3e}, "
        "loss: 1.5\n"
        for epoch in (1, 2, 3)
        for i in (50, 100)
    )
    plan = Schedule(1e-4, "step", milestones=(200.0,))
    log = log_of(text)
    for per_epoch, count in ((100.0, 0), (50.0, 1)):
        card = Card(schedules=(plan,), steps_per_epoch=per_epoch)
        found = judge(Evidence(log=audit(log, card)), select=["LOG205"]).findings
        assert len(found) == count


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "x"}, {"kind": "cosine"}, {"kind": "step"}, {"unit": "day"},
     {"kind": "linear", "steps": 5.0, "warmup": 9.0}],
)  # fmt: skip
def test_what_is_no_schedule(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"kind|schedule|unit"):
        Schedule(1.0, **wrong)  # type: ignore[arg-type]
