from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.resumes import edited, evidence, saved
from tests.builders.schedulers import BUILD
from tests.builders.schedulers import saved as run_of
from tests.builders.small_run import State


def wrong_since(state: State) -> None:
    """Group and scheduler agree on a rate that the schedule does not give."""
    state["optimizer"]["param_groups"][1]["lr"] *= 0.4
    state["scheduler"]["_last_lr"][1] *= 0.4


def group_alone(state: State) -> None:
    state["optimizer"]["param_groups"][1]["lr"] *= 0.4


def other_base(state: State) -> None:
    state["scheduler"]["base_lrs"][0] *= 2


def without(state: State) -> None:
    wrong_since(state)
    del state["scheduler"]


@cache
def files(name: str) -> list[State]:
    """Return the files of a run under a scheduler, one after another; they are not edited."""
    return run_of(name, 45)


def scheduled(
    name: str, epoch: int, *, factor: float = 1.0, earlier: int | None = None
) -> Evidence:
    """Return a file, the rate of its second group times a factor in group and scheduler."""
    state = deepcopy(files(name)[epoch])
    state["optimizer"]["param_groups"][1]["lr"] *= factor
    state["scheduler"]["_last_lr"][1] *= factor
    before = () if earlier is None else (saved(files(name)[earlier]),)
    return replace(saved(state), earlier=before)


def plateau(epoch: int = 20, *, earlier: int | None = None, **values: Any) -> Evidence:
    """Return a file with ReduceLROnPlateau, its state edited."""
    state = deepcopy(files("ReduceLROnPlateau")[epoch])
    state["scheduler"].update(values)
    before = () if earlier is None else (saved(files("ReduceLROnPlateau")[earlier]),)
    return replace(saved(state), earlier=before)


def parts_apart() -> Evidence:
    """Return a chained schedule of which one part was not stepped on."""
    state = deepcopy(files("ChainedScheduler")[20])
    state["scheduler"]["_schedulers"][1]["last_epoch"] = 3
    return saved(state)


def two_optimizers(factor: float) -> Evidence:
    """Return a file with optimizers and schedulers in lists, as Lightning saves them."""
    first, second = deepcopy(files("StepLR")[20]), deepcopy(files("CosineAnnealingLR")[20])
    second["optimizer"]["param_groups"][0]["lr"] *= factor
    second["scheduler"]["_last_lr"][0] *= factor
    return saved(
        {
            "state_dict": first["model"],
            "optimizer_states": [first["optimizer"], second["optimizer"]],
            "lr_schedulers": [first["scheduler"], second["scheduler"]],
            "pytorch-lightning_version": "2.4.0",
            "epoch": 20,
            "global_step": 40,
        }
    )


FIRES_ON = {"a_rate": partial(evidence, wrong_since), "a_base": partial(evidence, other_base)}
FIRES_ON |= {
    f"{name}_at_{epoch}": partial(scheduled, name, epoch, factor=0.4, earlier=epoch - 1)
    for name in BUILD
    for epoch in (13, 30)
}
FIRES_ON |= {
    "bad_epochs_beyond_the_patience": partial(plateau, num_bad_epochs=3),
    "a_cooldown_beyond": partial(plateau, cooldown_counter=2),
    "a_best_that_got_worse": partial(plateau, earlier=19, best=0.9),
    "too_many_reductions": partial(scheduled, "ReduceLROnPlateau", 20, factor=0.5, earlier=19),
    "parts_apart": parts_apart,
    "one_of_two_optimizers": partial(two_optimizers, 0.4),
}
SILENT_ON = {
    "a_healthy_epoch": evidence,
    "its_first_epoch": partial(evidence, epoch=1),
    "no_scheduler": partial(evidence, without),
    "what_RUN102_says": partial(evidence, group_alone),
    "an_unknown_schedule": partial(evidence, edited("scheduler", warm_up=3)),
    "two_optimizers": partial(two_optimizers, 1.0),
    "a_plateau_after_another": partial(plateau, 20, earlier=5),
    "a_plateau_begun_anew": partial(plateau, 3, earlier=20),
}
SILENT_ON |= {
    f"{name}_at_{epoch}": partial(scheduled, name, epoch, earlier=max(0, epoch - 3))
    for name in BUILD
    for epoch in (0, 1, 12, 13, 30, 45)
}


def test_names_the_group_and_the_rate_that_is_due() -> None:
    (finding,) = judge(evidence(wrong_since), select=["RUN106"]).findings
    assert finding.target.endswith("param_groups[1]")
    assert abs(finding.evidence["lr"] / finding.evidence["schedule"] - 0.4) < 1e-6


@pytest.mark.parametrize("name", ["LambdaLR", "LambdaLR closure", "MultiplicativeLR"])
def test_two_groups_under_functions_are_a_note(name: str) -> None:
    (finding,) = judge(scheduled(name, 13, factor=0.4), select=["RUN106"]).findings
    assert finding.severity == "note"


def test_a_plateau_is_held_against_the_file_before() -> None:
    assert not judge(scheduled("ReduceLROnPlateau", 20, factor=0.4), select=["RUN106"]).findings
    told = judge(scheduled("ReduceLROnPlateau", 20, factor=0.5, earlier=19), select=["RUN106"])
    (finding,) = told.findings
    assert finding.evidence["reductions"] > finding.evidence["most"]
