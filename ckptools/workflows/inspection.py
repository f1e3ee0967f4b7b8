"""What ``inspect`` found out, row by row: tensors, modules and optimizers with their measures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import hypot, isfinite, sqrt
from typing import Any

from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState, ParameterState
from ckptools.types.finding import Finding
from ckptools.types.measurements import Measurements, SlotMeasures, Statistics
from ckptools.types.tensor import FLOATING, TensorRef

#: fields of Statistics that a document shows as they are
_SHOWN = (
    "numel", "mean", "std", "rms", "l2_norm", "min", "max", "abs_max", "zeros", "nan", "inf",
    "subnormal", "skewness", "kurtosis", "abs_p999", "exponent_gap", "isolated", "near_overflow",
    "dead_rows", "dead_columns", "duplicate_rows", "complete",
)  # fmt: skip
_QUANTILES = ("p01", "p05", "p25", "p50", "p75", "p95", "p99")
_SPECTRUM = ("spectral_norm", "stable_rank", "effective_rank", "edge_ratio", "method")
#: what is measured of a weight and its optimizer state together
_JOINT = ("next_update_ratio", "direction_rms", "cosine", "gradient_norm")
#: settings of a parameter group that every document has, null where the file lacks them
_SETTINGS = ("lr", "betas", "eps", "weight_decay", "momentum")


def statistics_document(statistics: Statistics | None) -> dict[str, Any] | None:
    """Return the JSON of one tensor's statistics; the sketch and the digest stay inside."""
    if statistics is None:
        return None
    shown = {name: getattr(statistics, name) for name in _SHOWN}
    shown |= {name: statistics.quantiles.get(name) for name in _QUANTILES}
    spectrum = statistics.spectrum
    if spectrum is not None:
        shown["spectrum"] = {name: getattr(spectrum, name) for name in _SPECTRUM}
    return shown


@dataclass(frozen=True)
class TensorRow:
    """One tensor with everything known about it."""

    tensor: NamedTensor
    statistics: Statistics | None = None
    slots: SlotMeasures | None = None
    state: ParameterState | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON of the contract."""
        one, ref = self.tensor, self.tensor.ref
        return {
            "name": one.name,
            "key": one.key,
            "set": one.set,
            "stack": one.stack,
            "block": one.block,
            "module": one.module,
            "role": one.role,
            "kind": one.kind,
            "shape": list(ref.shape),
            "dtype": ref.dtype,
            "storage": ref.storage.name if ref.storage else None,
            "unreadable": ref.unreadable,
            "statistics": statistics_document(self.statistics),
            "slots": self._slots(),
            **{name: getattr(self.slots, name, None) for name in _JOINT},
            "optimizer_step": self.state.step if self.state else None,
        }

    def _slots(self) -> dict[str, Any]:
        """Return a few statistics of each optimizer slot, and of what type the file keeps it."""
        measured = self.slots.statistics if self.slots else {}
        held = self.state.slots if self.state else {}
        names = ("l2_norm", "rms", "abs_max", "zeros", "nan", "inf")
        return {
            slot: {name: getattr(statistics, name) for name in names}
            | {"dtype": held[slot].dtype if slot in held else "uint8"}
            for slot, statistics in measured.items()
        }

    def row(self) -> dict[str, Any]:
        """Return one flat row for csv and jsonl; the columns are the same for every tensor."""
        flat = self.document()
        measured = flat.pop("statistics") or {}
        spectrum = measured.pop("spectrum", {})
        slots = flat.pop("slots")
        joint = {name: flat.pop(name) for name in (*_JOINT, "optimizer_step")}
        numel = flat["numel"] = self.tensor.ref.numel
        flat |= {name: measured.get(name) for name in (*_SHOWN, *_QUANTILES)} | {"numel": numel}
        flat |= {name: spectrum.get(name) for name in _SPECTRUM if name != "method"}
        flat |= {f"{slot}_l2_norm": values["l2_norm"] for slot, values in slots.items()}
        return flat | joint


@dataclass
class ModuleRow:
    """The tensors of one module (or of one depth of names) taken together."""

    name: str
    set: str
    tensors: list[TensorRow] = field(default_factory=list)
    findings: int = 0

    def weights(self) -> list[TensorRow]:
        """Return the tensors that norms are taken over.

        These are the floating parameters: a step counter or a running variance among them would
        drown the weights.  A module without any is measured by what it has.
        """
        floating = [row for row in self.tensors if row.tensor.ref.dtype in FLOATING]
        trained = [row for row in floating if row.tensor.kind == "parameter"]
        return trained or floating or self.tensors

    def document(self) -> dict[str, Any]:
        """Return the JSON of the contract; measures are null where nothing was measured."""
        weights = self.weights()
        return {
            "name": self.name,
            "set": self.set,
            "tensors": len(self.tensors),
            "elements": sum(row.tensor.ref.numel for row in self.tensors),
            "dtypes": sorted({row.tensor.ref.dtype for row in weights}),
            **_norms([row.statistics for row in weights if row.statistics]),
            **_counts([row.statistics for row in self.tensors if row.statistics]),
            "next_update_ratio": self._largest_update(),
            "findings": self.findings,
        }

    def _largest_update(self) -> float | None:
        """Return the largest next-update ratio of its tensors."""
        slots = [row.slots.next_update_ratio for row in self.tensors if row.slots]
        return max((ratio for ratio in slots if ratio is not None), default=None)


def _norms(measured: Sequence[Statistics]) -> dict[str, Any]:
    """Return norms and extremes over several tensors; null where none was measured."""
    if not measured:
        return {"l2_norm": None, "rms": None, "abs_max": None}
    norm = hypot(*(one.l2_norm or 0.0 for one in measured))
    finite = sum(one.finite for one in measured)
    return {
        "l2_norm": norm,
        "rms": norm / sqrt(finite) if finite else None,
        "abs_max": max((one.abs_max for one in measured if one.abs_max is not None), default=None),
    }


def _counts(measured: Sequence[Statistics]) -> dict[str, Any]:
    """Return counts over several tensors; null where none was measured."""
    names = ("zeros", "nan", "inf")
    return {
        name: sum(getattr(one, name) for one in measured) if measured else None for name in names
    }


def tensor_rows(checkpoint: Checkpoint, measurements: Measurements | None) -> list[TensorRow]:
    """Return one row per tensor of every weight set, in file order."""
    if measurements is None:
        return [TensorRow(one) for one in checkpoint.tensors()]
    slots = _slots_by_name(checkpoint, measurements)
    keys = [((one.set, one.name), one) for one in checkpoint.tensors()]
    return [
        TensorRow(one, measurements.tensors.get(key), *slots.get(key, (None, None)))
        for key, one in keys
    ]


def _slots_by_name(
    checkpoint: Checkpoint, measurements: Measurements
) -> dict[tuple[str | None, str], tuple[SlotMeasures, ParameterState]]:
    """Return states and their measures by (set, name), where the parameter is known."""
    named = {}
    for index, optimizer in enumerate(checkpoint.optimizers):
        for position, state in enumerate(optimizer.states):
            measures = measurements.slots.get((index, position))
            if state.name is not None and measures is not None:
                named[optimizer.set, state.name] = measures, state
    return named


def module_rows(
    rows: Sequence[TensorRow], findings: Sequence[Finding] = (), depth: int | None = None
) -> list[ModuleRow]:
    """Return the tensors grouped into modules, or by the first ``depth`` parts of their names."""
    modules: dict[tuple[str, str], ModuleRow] = {}
    places: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        one = row.tensor
        name = one.module if depth is None else ".".join(one.name.split(".")[:depth])
        place = (one.set, name or one.name)
        modules.setdefault(place, ModuleRow(place[1], one.set)).tensors.append(row)
        for target in (one.name, one.key, f"{one.set}:{one.name}", place[1]):
            places[target].add(place)
    for finding in findings:
        for place in places.get(finding.target, ()):
            modules[place].findings += 1
    return list(modules.values())


def optimizer_document(
    optimizer: OptimizerState, index: int, measurements: Measurements | None
) -> dict[str, Any]:
    """Return the JSON of one optimizer."""
    states = optimizer.states
    standings = Counter(state.standing for state in states)
    members: dict[int, list[tuple[ParameterState, SlotMeasures | None]]] = defaultdict(list)
    for place, state in enumerate(states):
        measured = measurements.slots.get((index, place)) if measurements else None
        members[state.group].append((state, measured))
    return {
        "kind": optimizer.kind,
        "key": optimizer.key,
        "set": optimizer.set,
        "parameters": sum(len(group.ids) for group in optimizer.groups),
        "with_state": sum(state.has_state for state in states),
        "without_state": [_state_name(state) for state in states if not state.has_state],
        "steps": _spread(states),
        "moments": dict(Counter(_dtype(state) for state in states if state.slots)),
        "not_decoded": _not_decoded(states, index, measurements),
        "groups": [
            {
                "index": group.index,
                "name": group.name,
                **dict.fromkeys(_SETTINGS),
                **{key: plain_setting(value) for key, value in group.settings.items()},
                "parameters": len(group.ids),
                "measures": _group_measures(members[group.index]),
            }
            for group in optimizer.groups
        ],
        "matched_by": optimizer.matched_by,
        "named": {kind: standings[kind] for kind in ("sure", "by_order", "ambiguous", "unknown")},
        "ambiguous": [_state_name(state) for state in states if state.standing == "ambiguous"],
        "gradient_norm": _gradient_norm(index, measurements),
    }


def _spread(states: Sequence[ParameterState]) -> dict[str, float] | None:
    """Return the fewest and the most steps of the states that count theirs."""
    steps = [state.step for state in states if state.step is not None and isfinite(state.step)]
    return {"min": min(steps), "max": max(steps)} if steps else None


def _dtype(state: ParameterState) -> str:
    """Return the types of a state's slots of more than one element, "uint8" for eight-bit codes."""
    held = [ref.dtype for ref in state.slots.values() if ref.numel > 1]
    coded = "uint8" in held and "state1" in state.slots
    return "uint8" if coded else "+".join(sorted(set(held))) or "scalar"


def _not_decoded(
    states: Sequence[ParameterState], index: int, measurements: Measurements | None
) -> int:
    """Return of how many eight-bit states the codes themselves were counted, not what they mean."""
    slots = measurements.slots if measurements else {}
    coded = [place for place, state in enumerate(states) if _dtype(state) == "uint8"]
    found = [slots[index, place] for place in coded if (index, place) in slots]
    return sum("state1" in one.statistics for one in found)


def _group_measures(
    members: Sequence[tuple[ParameterState, SlotMeasures | None]],
) -> dict[str, Any] | None:
    """Return the measures of a group's states together; None where none was measured.

    Norms and the gradient norm are over all its elements, ``direction_rms`` is over those with a
    direction, ``next_update_ratio`` is the largest of any parameter.
    """
    found = [measured for _, measured in members if measured is not None]
    if not found:
        return None
    norms: dict[str, list[float]] = defaultdict(list)
    for one in found:
        for slot, statistics in one.statistics.items():
            norms[slot].append(statistics.l2_norm or 0.0)
    known = [
        (one.direction_rms, max((s.numel for s in one.statistics.values()), default=0))
        for one in found
        if one.direction_rms is not None
    ]
    ratios = [one.next_update_ratio for one in found if one.next_update_ratio is not None]
    total = sum(numel for _, numel in known)
    return {
        "slots": {slot: hypot(*values) for slot, values in norms.items()},
        "next_update_ratio": max(ratios, default=None),
        "direction_rms": sqrt(sum(r * r * n for r, n in known) / total) if total else None,
        "gradient_norm": _together(one.gradient_norm for one in found),
        "steps": _spread([state for state, _ in members]),
    }


def _state_name(state: Any) -> str:
    """Return the parameter's name, or what the file calls its state."""
    return state.name if state.name is not None else str(state.id)


def _gradient_norm(index: int, measurements: Measurements | None) -> float | None:
    """Return the bias-corrected norm sqrt(sum v / (1 - beta2^t)) over all parameters."""
    slots = measurements.slots if measurements else {}
    return _together(
        one.gradient_norm for (optimizer, _), one in slots.items() if optimizer == index
    )


def _together(norms: Iterable[float | None]) -> float | None:
    """Return the norm of several parts taken as one vector; None where none is known."""
    known = [norm for norm in norms if norm is not None]
    return hypot(*known) if known else None


def plain_setting(value: Any) -> Any:
    """Return a saved setting as a plain value; what is none becomes a few words."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)) and len(value) <= 16:
        return [plain_setting(item) for item in value]
    if isinstance(value, TensorRef):
        return f"tensor of {value.dtype}, shape {list(value.shape)}"
    return f"<{type(value).__name__}>"


def tied(checkpoint: Checkpoint) -> Iterator[list[NamedTensor]]:
    """Yield groups of tensors that are views of the very same elements."""
    views: dict[tuple[Any, ...], list[NamedTensor]] = defaultdict(list)
    for one in checkpoint.tensors():
        ref = one.ref
        if ref.storage is not None and ref.numel:
            place = (id(ref.storage.source), ref.storage.start, ref.offset, ref.shape, ref.strides)
            views[place].append(one)
    yield from (group for group in views.values() if len(group) > 1)
