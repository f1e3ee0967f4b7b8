"""What ``inspect`` found out, row by row: tensors, modules and optimizers with their measures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import hypot, isfinite, sqrt
from typing import Any

from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState
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
            "next_update_ratio": self.slots.next_update_ratio if self.slots else None,
        }

    def _slots(self) -> dict[str, Any]:
        """Return a few statistics of each optimizer slot."""
        measured = self.slots.statistics if self.slots else {}
        names = ("l2_norm", "rms", "abs_max", "zeros", "nan", "inf")
        return {
            slot: {name: getattr(statistics, name) for name in names}
            for slot, statistics in measured.items()
        }

    def row(self) -> dict[str, Any]:
        """Return one flat row for csv and jsonl; the columns are the same for every tensor."""
        flat = self.document()
        measured = flat.pop("statistics") or {}
        spectrum = measured.pop("spectrum", {})
        slots = flat.pop("slots")
        ratio = flat.pop("next_update_ratio")
        numel = flat["numel"] = self.tensor.ref.numel
        flat |= {name: measured.get(name) for name in (*_SHOWN, *_QUANTILES)} | {"numel": numel}
        flat |= {name: spectrum.get(name) for name in _SPECTRUM if name != "method"}
        flat |= {f"{slot}_l2_norm": values["l2_norm"] for slot, values in slots.items()}
        return flat | {"next_update_ratio": ratio}


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
    return [
        TensorRow(
            one, measurements.tensors.get((one.set, one.name)), slots.get((one.set, one.name))
        )
        for one in checkpoint.tensors()
    ]


def _slots_by_name(
    checkpoint: Checkpoint, measurements: Measurements
) -> dict[tuple[str | None, str], SlotMeasures]:
    """Return optimizer measures by (set, name) for the states whose parameter is known."""
    named = {}
    for index, optimizer in enumerate(checkpoint.optimizers):
        for position, state in enumerate(optimizer.states):
            measures = measurements.slots.get((index, position))
            if state.name is not None and measures is not None:
                named[optimizer.set, state.name] = measures
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
    steps = [state.step for state in states if state.step is not None and isfinite(state.step)]
    return {
        "kind": optimizer.kind,
        "key": optimizer.key,
        "set": optimizer.set,
        "parameters": sum(len(group.ids) for group in optimizer.groups),
        "with_state": sum(state.has_state for state in states),
        "without_state": [_state_name(state) for state in states if not state.has_state],
        "steps": {"min": min(steps), "max": max(steps)} if steps else None,
        "groups": [
            {
                "index": group.index,
                "name": group.name,
                **dict.fromkeys(_SETTINGS),
                **{key: plain_setting(value) for key, value in group.settings.items()},
                "parameters": len(group.ids),
            }
            for group in optimizer.groups
        ],
        "matched_by": optimizer.matched_by,
        "named": {kind: standings[kind] for kind in ("sure", "by_order", "ambiguous", "unknown")},
        "ambiguous": [_state_name(state) for state in states if state.standing == "ambiguous"],
        "gradient_norm": _gradient_norm(index, measurements),
    }


def _state_name(state: Any) -> str:
    """Return the parameter's name, or what the file calls its state."""
    return state.name if state.name is not None else str(state.id)


def _gradient_norm(index: int, measurements: Measurements | None) -> float | None:
    """Return the bias-corrected norm sqrt(sum v / (1 - beta2^t)) over all parameters."""
    norms = [
        measures.gradient_norm
        for (optimizer, _), measures in (measurements.slots if measurements else {}).items()
        if optimizer == index and measures.gradient_norm is not None
    ]
    return hypot(*norms) if norms else None


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
