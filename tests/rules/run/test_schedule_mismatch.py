from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.pairs import evidence
from tests.builders.resumes import saved
from tests.builders.schedulers import saved as saved_run
from tests.builders.small_run import State


def other_rate(state: State) -> None:
    state["optimizer"]["param_groups"][1]["lr"] *= 10


def without_scheduler(state: State) -> None:
    state["optimizer"]["param_groups"][1]["lr"] *= 10
    del state["scheduler"]


def two_optimizers(factor: float) -> Evidence:
    """Return a file of Lightning's with two optimizers and schedulers, one rate edited."""
    first, second = saved_run("StepLR", 3)[3], saved_run("CosineAnnealingLR", 3)[3]
    second["optimizer"]["param_groups"][0]["lr"] *= factor
    return saved(
        {
            "state_dict": first["model"],
            "optimizer_states": [first["optimizer"], second["optimizer"]],
            "lr_schedulers": [first["scheduler"], second["scheduler"]],
            "pytorch-lightning_version": "2.6.6",
        }
    )


FIRES_ON = {
    "one_group": partial(evidence, other_rate),
    "one_of_two_optimizers": partial(two_optimizers, 0.4),
}
SILENT_ON = {
    "a_healthy_epoch": evidence,
    "no_scheduler": partial(evidence, without_scheduler),
    "two_optimizers": partial(two_optimizers, 1.0),
}


def test_names_the_group() -> None:
    (finding,) = judge(evidence(other_rate), select=["RUN102"]).findings
    assert finding.target.endswith("param_groups[1]")
    assert finding.evidence["lr"] > finding.evidence["last_lr"]
