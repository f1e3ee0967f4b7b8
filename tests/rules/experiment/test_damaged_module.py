"""EXP101: cases for the contract of rules."""

from __future__ import annotations

from tests.builders.experiments import damaged, experiment

FIRES_ON = {
    "one": lambda: damaged("weights", "decoder.layers.0"),
    "two": lambda: damaged("weights", "decoder.layers.0, decoder.layers.3"),
}
SILENT_ON = {
    "healthy": experiment,
    "everywhere": lambda: damaged("weights"),
    "optimizer": lambda: damaged("optimizer"),
}
