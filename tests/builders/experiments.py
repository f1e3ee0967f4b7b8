"""Experiments as a re-run leaves them, for the rules of the family EXP."""

from __future__ import annotations

from typing import Any

from ckptools.types.evidence import Evidence
from ckptools.types.verdict import Experiment, Rung, Verdict

TASK = "lanes.py:Lanes"


def experiment(
    cause: str = "none",
    decision: str = "refuted",
    module: str | None = None,
    **rungs: dict[str, Any],
) -> Evidence:
    """Return evidence of a verdict; rungs by name (``knock_out``), with their evidence."""
    scope = None if decision != "supported" else "module" if module else "global"
    climbed = tuple(
        Rung(name.replace("_", "-"), False, 0.0, evidence=found) for name, found in rungs.items()
    )
    return Evidence(
        experiment=Experiment(
            "run/checkpoint_epoch_12.pth",
            "run/checkpoint_epoch_11.pth",
            TASK,
            Verdict(decision, cause, "reason", module, scope, effect=0.5),
            climbed,
        )
    )


def damaged(cause: str, module: str | None = None) -> Evidence:
    """Return evidence of damage."""
    return experiment(cause, "supported", module)
