"""EXP107: cases for the contract of rules."""

from __future__ import annotations

from typing import Any

from tests.builders.experiments import experiment


def table(norm: float, wild: bool) -> dict[str, Any]:
    return {"wild": wild, "table": {"total": norm, "leading": "dir.0", "probes": {}}}


FIRES_ON = {
    "not finite": lambda: experiment(gradient_table=table(float("inf"), True)),
}
SILENT_ON = {
    "healthy": lambda: experiment(gradient_table=table(12.0, False)),
    "not climbed": experiment,
}
