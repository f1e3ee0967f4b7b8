"""What rules share when they walk over optimizer slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptools.rules.weights import FEW
from ckptools.types.checkpoint import OptimizerState, ParameterState
from ckptools.types.evidence import Evidence
from ckptools.types.measurements import Statistics
from ckptools.types.tensor import FLOATING

#: Slots that accumulate squares (or largest magnitudes) and start from zero.
SQUARES = frozenset(
    {
        "exp_avg_sq",
        "max_exp_avg_sq",
        "exp_avg_sq_row",
        "exp_avg_sq_col",
        "square_avg",
        "sum",
        "exp_inf",
    }
)


@dataclass(frozen=True, slots=True)
class MeasuredSlot:
    """One slot of one parameter's state with its measures."""

    optimizer: OptimizerState
    state: ParameterState
    slot: str
    statistics: Statistics

    @property
    def target(self) -> str:
        """The parameter's name where it is known, else where the state lies in the file."""
        if self.state.name is not None and self.state.standing in ("sure", "by_order"):
            return self.state.name
        return f"{self.optimizer.key}.state[{self.state.id}]"


def gathered_slots(hits: Sequence[MeasuredSlot]) -> list[tuple[str, list[MeasuredSlot]]]:
    """Return ``hits`` by parameter when those are few, else by optimizer, each with its target."""
    by_parameter: dict[str, list[MeasuredSlot]] = {}
    by_optimizer: dict[str, list[MeasuredSlot]] = {}
    for hit in hits:
        by_parameter.setdefault(hit.target, []).append(hit)
        by_optimizer.setdefault(hit.optimizer.key, []).append(hit)
    groups = by_parameter if len(by_parameter) <= FEW else by_optimizer
    return list(groups.items())


def measured_slots(evidence: Evidence) -> Iterator[MeasuredSlot]:
    """Iterate over all floating-point slots that were measured, in file order."""
    if evidence.checkpoint is None or evidence.measurements is None:
        return
    for number, optimizer in enumerate(evidence.checkpoint.optimizers):
        for position, state in enumerate(optimizer.states):
            measures = evidence.measurements.slots.get((number, position))
            for slot, statistics in (measures.statistics if measures else {}).items():
                if slot in state.slots and state.slots[slot].dtype in FLOATING:
                    yield MeasuredSlot(optimizer, state, slot, statistics)
