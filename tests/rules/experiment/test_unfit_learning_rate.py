"""EXP104: cases for the contract of rules."""

from __future__ import annotations

from tests.builders.experiments import damaged, experiment

FIRES_ON = {
    "rates": lambda: experiment("learning-rate"),
}
SILENT_ON = {
    "healthy": experiment,
    "optimizer": lambda: damaged("optimizer"),
}
