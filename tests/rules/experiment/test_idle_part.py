"""EXP108: cases for the contract of rules."""

from __future__ import annotations

from typing import Any

from tests.builders.experiments import experiment


def shuffled(lost: list[str]) -> dict[str, Any]:
    return {"lost": lost, "effects": {"projector": 0.0}, "earlier": {"projector": 0.8}}


FIRES_ON = {
    "scene tokens": lambda: experiment(knock_out=shuffled(["projector"])),
}
SILENT_ON = {
    "all carry": lambda: experiment(knock_out=shuffled([])),
    "not climbed": experiment,
}
