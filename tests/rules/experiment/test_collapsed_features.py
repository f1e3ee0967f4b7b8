"""EXP109: cases for the contract of rules."""

from __future__ import annotations

from typing import Any

from tests.builders.experiments import experiment


def outputs(collapsed: list[str]) -> dict[str, Any]:
    one = {"rank": 1.2, "width": 64, "collapse": 0.999, "probe": None, "likeness": 0.1}
    return {"collapsed": collapsed, "modules": {"projector": one}}


FIRES_ON = {
    "one token": lambda: experiment(features=outputs(["projector"])),
}
SILENT_ON = {
    "alive": lambda: experiment(features=outputs([])),
    "not climbed": experiment,
}
