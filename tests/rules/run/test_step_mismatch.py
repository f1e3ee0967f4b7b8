from __future__ import annotations

from functools import partial

import pytest

from ckptools.rules import judge
from tests.builders.resumes import edited, evidence, setting, together
from tests.builders.small_run import State

BEHIND = setting("global_step", 47)


def without_states(state: State) -> None:
    state["optimizer"]["state"] = {}


FIRES_ON = {
    "another_counter": partial(evidence, BEHIND),
    "one_apart": partial(evidence, setting("global_step", 61)),
    "longer_epochs": partial(evidence, edited("args", steps_per_epoch=20)),
    "epochs_of_before": partial(evidence, setting("epoch", 17), earlier=4),
}
SILENT_ON = {
    "a_healthy_epoch": evidence,
    "epochs_of_12": partial(evidence, edited("args", steps_per_epoch=12)),
    "its_earlier_file": partial(evidence, earlier=2),
    "accumulated": partial(evidence, setting("global_step", 240)),
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
