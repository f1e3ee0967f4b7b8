"""EXP106: cases for the contract of rules."""

from __future__ import annotations

from tests.builders.experiments import damaged, experiment

FIRES_ON = {
    "data": lambda: experiment("data-or-code"),
}
SILENT_ON = {
    "healthy": experiment,
    "weights": lambda: damaged("weights"),
}
