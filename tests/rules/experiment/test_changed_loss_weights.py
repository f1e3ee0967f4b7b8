"""EXP105: cases for the contract of rules."""

from __future__ import annotations

from tests.builders.experiments import experiment

FIRES_ON = {
    "changed": lambda: experiment(
        "loss-weights", environment={"changed_weights": [["loss_aux", 306.0, 167.5]]}
    ),
}
SILENT_ON = {
    "healthy": experiment,
    "as logged": lambda: experiment(environment={"now": 5.0, "logged": 5.0}),
}
