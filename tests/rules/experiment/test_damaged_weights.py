"""EXP102: cases for the contract of rules."""

from __future__ import annotations

from tests.builders.experiments import damaged, experiment

FIRES_ON = {
    "everywhere": lambda: damaged("weights"),
}
SILENT_ON = {
    "healthy": experiment,
    "one module": lambda: damaged("weights", "projector"),
}
