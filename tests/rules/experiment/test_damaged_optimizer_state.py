"""EXP103: cases for the contract of rules."""

from __future__ import annotations

from tests.builders.experiments import damaged, experiment

FIRES_ON = {
    "optimizer": lambda: damaged("optimizer"),
}
SILENT_ON = {
    "healthy": experiment,
    "weights": lambda: damaged("weights"),
    "undecided": lambda: experiment("undecided", "undecided"),
}
