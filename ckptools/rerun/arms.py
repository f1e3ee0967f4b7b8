"""The arms of a short re-run: what each starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptools.types.checkpoint import Checkpoint


@dataclass(frozen=True)
class Arm:
    """One way to go on training.

    Attributes
    ----------
    name: as printed.
    start: the checkpoint whose weights, optimizer and scheduler states are taken.
    weights: its weights by the model's names.
    optimizer: "kept" or "reset" (learning rates and schedule are kept either way).
    rates: learning rates of the groups that replace the saved ones, or None.
    """

    name: str
    start: Checkpoint
    weights: Mapping[str, Any]
    optimizer: str = "kept"
    rates: tuple[float, ...] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Return what distinguishes the arm, for the report."""
        return {
            "start": self.start.path,
            "optimizer": self.optimizer,
            "rates": list(self.rates) if self.rates else "as saved",
        }
