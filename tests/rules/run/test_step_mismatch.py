from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.resumes import SCALER, edited, evidence, lightning, setting, together
from tests.builders.small_run import State

BEHIND = setting("global_step", 47)


def without_states(state: State) -> None:
    state["optimizer"]["state"] = {}


def trainer(most: float, epoch: float = 3.0, epochs: float = 10.0) -> Evidence:
    """Return the evidence of a trainer that is so many epochs into so many steps."""
    whole = evidence()
    assert whole.checkpoint is not None
    totals = {"epoch": epoch, "max_steps": most, "num_train_epochs": epochs}
    counters = {f"trainer_state.{key}": value for key, value in totals.items()}
    run = replace(whole.checkpoint.run, counters=counters)
    return replace(whole, checkpoint=replace(whole.checkpoint, run=run))


FIRES_ON = {
    "lightnings_loops": partial(lightning, counted=47),
    "a_trainers_totals": partial(trainer, 1000.0),
    "another_counter": partial(evidence, BEHIND),
    "one_apart": partial(evidence, setting("global_step", 61)),
    "beyond_what_a_loss_scaler_skips": partial(
        evidence, together(setting("global_step", 133), setting("scaler", SCALER))
    ),
    "more_than_were_tried": partial(evidence, together(BEHIND, setting("scaler", SCALER))),
    "longer_epochs": partial(evidence, edited("args", steps_per_epoch=20)),
    "epochs_of_before": partial(evidence, setting("epoch", 17), earlier=4),
}
SILENT_ON = {
    "lightning": lightning,
    "a_healthy_epoch": evidence,
    "a_trainers_totals": partial(trainer, 200.0),
    "a_trainer_given_its_steps": partial(trainer, 60.0, 1.5, 2.0),
    "two_batches_a_step": partial(
        evidence, edited("args", steps_per_epoch=24, gradient_accumulation_steps=2)
    ),
    "epochs_of_12": partial(evidence, edited("args", steps_per_epoch=12)),
    "its_earlier_file": partial(evidence, earlier=2),
    "accumulated": partial(evidence, setting("global_step", 240)),
    "skipped_by_a_loss_scaler": partial(
        evidence, together(setting("global_step", 66), setting("scaler", SCALER))
    ),
    "no_states": partial(evidence, together(BEHIND, without_states)),
    "amid_an_epoch": partial(
        evidence, together(edited("args", steps_per_epoch=13), setting("epoch", 4))
    ),
}


@pytest.mark.parametrize(("step", "severity"), [(61, "note"), (59, "note"), (66, "warning")])
def test_one_apart_is_a_note(step: int, severity: str) -> None:
    (finding,) = judge(evidence(setting("global_step", step)), select=["RUN104"]).findings
    assert finding.severity == severity
    assert finding.evidence["counter"] == step
