"""A checkpoint and its measurements as a JSON document with two arrays, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckptools.errors import MeasureError
from ckptools.stats.histogram import Sketch
from ckptools.stats.plain_json import decode, encode
from ckptools.types.checkpoint import (
    Checkpoint,
    NamedTensor,
    OptimizerState,
    ParameterGroup,
    ParameterState,
    RunState,
    WeightSet,
)
from ckptools.types.container import Container, Fault, GlobalUse
from ckptools.types.measurements import Measurements, SlotMeasures, Spectrum, Statistics
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef
from ckptools.types.tree import Pairs

SCHEMA = "ckptools.measures/1"
UNREADABLE = "only its measurements were kept"


class Saved(NamedTuple):
    """What a measures file gives back: a checkpoint without values, and its measurements."""

    checkpoint: Checkpoint
    measurements: Measurements


@dataclass
class Writer:
    """Turns a checkpoint and its measurements into a document; sketches go into arrays."""

    bins: list[NDArray[Any]] = field(default_factory=list)
    counts: list[NDArray[Any]] = field(default_factory=list)
    length: int = 0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the sketches of all tensors, end to end."""
        return {
            "bins": np.concatenate([np.empty(0, "<u2"), *self.bins]).astype("<u2"),
            "counts": np.concatenate([np.empty(0, "<u8"), *self.counts]).astype("<u8"),
        }

    def document(self, measurements: Measurements, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return everything as JSON."""
        container = checkpoint.container
        return {
            "schema": SCHEMA,
            "path": checkpoint.path,
            "layout": checkpoint.layout,
            "container": {
                "format": container.format,
                "size_bytes": container.size_bytes,
                "metadata": encode(container.metadata),
                "globals": [_shallow(use) for use in container.globals],
                "faults": [encode(_shallow(fault)) for fault in container.faults],
                "not_judged": list(container.not_judged),
            },
            "run": encode(_shallow(checkpoint.run)),
            "not_judged": list(checkpoint.not_judged),
            "sets": [
                {
                    "name": weights.name,
                    "prefixes": list(weights.prefixes),
                    "tensors": [self._tensor(t, measurements) for t in weights.tensors],
                }
                for weights in checkpoint.weight_sets
            ],
            "optimizers": [
                self._optimizer(number, optimizer, measurements)
                for number, optimizer in enumerate(checkpoint.optimizers)
            ],
            "not_measured": [[*key, why] for key, why in measurements.not_measured.items()],
            "remarks": list(measurements.remarks),
        }

    def _tensor(self, tensor: NamedTensor, measurements: Measurements) -> dict[str, Any]:
        named = {
            name: getattr(tensor, name)
            for name in ("name", "key", "kind", "stack", "block", "module", "role")
        }
        found = measurements.tensors.get((tensor.set, tensor.name))
        return named | {"ref": _ref(tensor.ref), "statistics": self._statistics(found)}

    def _optimizer(
        self, number: int, optimizer: OptimizerState, measurements: Measurements
    ) -> dict[str, Any]:
        return {
            "key": optimizer.key,
            "kind": optimizer.kind,
            "set": optimizer.set,
            "matched_by": optimizer.matched_by,
            "groups": [encode(_shallow(group)) for group in optimizer.groups],
            "states": [
                self._state(state, measurements.slots.get((number, position)))
                for position, state in enumerate(optimizer.states)
            ],
        }

    def _state(self, state: ParameterState, measures: SlotMeasures | None) -> dict[str, Any]:
        plain = _shallow(state)
        del plain["slots"]
        found = measures or SlotMeasures({})
        joint = _shallow(found)
        del joint["statistics"]
        return {
            "state": encode(plain),
            "slots": [
                {
                    "name": slot,
                    "ref": _ref(ref),
                    "statistics": self._statistics(found.statistics.get(slot)),
                }
                for slot, ref in state.slots.items()
            ]
            + [
                {"name": slot, "ref": None, "statistics": self._statistics(statistics)}
                for slot, statistics in found.statistics.items()
                if slot not in state.slots  # as eight-bit moments decode
            ],
            "measures": encode(joint) if measures is not None else None,
        }

    def _statistics(self, statistics: Statistics | None) -> dict[str, Any] | None:
        if statistics is None:
            return None
        plain = _shallow(statistics)
        sketch = plain.pop("sketch")
        spectrum = plain.pop("spectrum")
        # what equals its default is left out
        kept = {
            each.name: encode(plain[each.name])
            for each in fields(Statistics)
            if each.name in plain and plain[each.name] != each.default
        }
        if spectrum is not None:
            kept["spectrum"] = encode(_shallow(spectrum))
        if isinstance(sketch, Sketch):
            kept["sketch"] = [sketch.dtype, sketch.dropped, self.length, int(sketch.bins.size)]
            self.length += int(sketch.bins.size)
            self.bins.append(sketch.bins)
            self.counts.append(sketch.counts)
        return kept


def _shallow(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass."""
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _ref(ref: TensorRef) -> dict[str, Any]:
    storage = ref.storage
    return {
        "dtype": ref.dtype,
        "shape": list(ref.shape),
        "strides": list(ref.strides),
        "offset": ref.offset,
        "unreadable": ref.unreadable,
        "requires_grad": ref.requires_grad,
        "parameter": ref.parameter,
        "storage": storage
        and [storage.name, storage.source.name, storage.start, storage.nbytes, storage.available],
    }


class _Gone:
    """The source of values that were not kept."""

    size = 0

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def identity(self) -> tuple[object, ...]:
        return (self.name,)

    def read_at(self, offset: int, length: int) -> bytes:
        raise MeasureError(UNREADABLE, where=self.name)

    def readinto_at(self, offset: int, buffer: memoryview) -> None:
        raise MeasureError(UNREADABLE, where=self.name)

    def close(self) -> None:
        """Do nothing."""


@dataclass
class Reader:
    """Turns a document back into a checkpoint and its measurements."""

    bins: NDArray[Any]
    counts: NDArray[Any]
    tensors: dict[tuple[str, str], Statistics] = field(default_factory=dict)
    slots: dict[tuple[int, int], SlotMeasures] = field(default_factory=dict)

    def read(self, document: dict[str, Any]) -> Saved:
        """Return everything."""
        if document["schema"] != SCHEMA:
            raise ValueError(f"unknown schema {document['schema']!r}")
        raw = document["container"]
        container = Container(
            path=_text(document["path"]),
            format=_text(raw["format"]),
            size_bytes=int(raw["size_bytes"]),
            root=Pairs(),
            globals=tuple(GlobalUse(**use) for use in raw["globals"]),
            faults=tuple(Fault(**decode(fault)) for fault in raw["faults"]),
            metadata=decode(raw["metadata"]),
            not_judged=_texts(raw["not_judged"]),
        )
        checkpoint = Checkpoint(
            path=container.path,
            container=container,
            layout=_text(document["layout"]),
            weight_sets=tuple(self._set(weights) for weights in document["sets"]),
            optimizers=tuple(
                self._optimizer(number, one) for number, one in enumerate(document["optimizers"])
            ),
            run=RunState(**decode(document["run"])),
            not_judged=_texts(document["not_judged"]),
        )
        refused = {(_text(a), _text(b)): _text(why) for a, b, why in document["not_measured"]}
        remarks = _texts(document["remarks"])
        return Saved(checkpoint, Measurements(self.tensors, self.slots, refused, remarks))

    def _set(self, raw: dict[str, Any]) -> WeightSet:
        name = _text(raw["name"])
        tensors = tuple(self._tensor(name, tensor) for tensor in raw["tensors"])
        return WeightSet(name, tensors, _texts(raw["prefixes"]))

    def _tensor(self, weights: str, raw: dict[str, Any]) -> NamedTensor:
        tensor = NamedTensor(
            name=_text(raw["name"]),
            key=_text(raw["key"]),
            set=weights,
            ref=_read_ref(raw["ref"]),
            kind=_text(raw["kind"]),
            stack=_optional(_text, raw["stack"]),
            block=_optional(int, raw["block"]),
            module=_text(raw["module"]),
            role=_optional(_text, raw["role"]),
        )
        if raw["statistics"] is not None:
            self.tensors[weights, tensor.name] = self._statistics(raw["statistics"])
        return tensor

    def _optimizer(self, number: int, raw: dict[str, Any]) -> OptimizerState:
        return OptimizerState(
            key=_text(raw["key"]),
            kind=_text(raw["kind"]),
            set=_optional(_text, raw["set"]),
            groups=tuple(ParameterGroup(**decode(group)) for group in raw["groups"]),
            states=tuple(
                self._state((number, position), state)
                for position, state in enumerate(raw["states"])
            ),
            matched_by=_text(raw["matched_by"]),
        )

    def _state(self, place: tuple[int, int], raw: dict[str, Any]) -> ParameterState:
        kept = (slot for slot in raw["slots"] if slot["ref"] is not None)
        slots = {_text(slot["name"]): _read_ref(slot["ref"]) for slot in kept}
        if raw["measures"] is not None:
            found = {
                _text(slot["name"]): self._statistics(slot["statistics"])
                for slot in raw["slots"]
                if slot["statistics"] is not None
            }
            self.slots[place] = SlotMeasures(statistics=found, **decode(raw["measures"]))
        return ParameterState(slots=slots, **decode(raw["state"]))

    def _statistics(self, raw: dict[str, Any]) -> Statistics:
        plain = {name: decode(value) for name, value in raw.items() if name in _KINDS}
        for name, value in plain.items():
            if not isinstance(value, _KINDS[name]):
                raise TypeError(f"{name} is {value!r}")
        if "spectrum" in raw:
            plain["spectrum"] = Spectrum(**decode(raw["spectrum"]))
        if "sketch" in raw:
            dtype, dropped, start, count = raw["sketch"]
            part = slice(int(start), int(start) + int(count))
            plain["sketch"] = Sketch(_text(dtype), int(dropped), self.bins[part], self.counts[part])
        return Statistics(**plain)


_NUMBER = (int, float)
#: the types that each field of Statistics may have in a document
_KINDS: dict[str, Any] = {
    each.name: {"int": int, "bool": bool, "str | None": str, "dict[str, float]": dict}.get(
        str(each.type), _NUMBER
    )
    for each in fields(Statistics)
    if each.name not in ("sketch", "spectrum")
} | {"initializers": tuple}


def _read_ref(raw: dict[str, Any]) -> TensorRef:
    storage = None
    if raw["storage"] is not None:
        name, source, start, nbytes, available = raw["storage"]
        storage = Storage(
            _text(name), _Gone(_text(source)), int(start), int(nbytes), int(available)
        )
    if raw["dtype"] not in ITEMSIZE:
        raise ValueError(f"unknown dtype {raw['dtype']!r}")
    return TensorRef(
        dtype=_text(raw["dtype"]),
        shape=tuple(int(size) for size in raw["shape"]),
        strides=tuple(int(step) for step in raw["strides"]),
        offset=int(raw["offset"]),
        storage=storage,
        unreadable=_optional(_text, raw["unreadable"]) or UNREADABLE,
        requires_grad=_optional(bool, raw["requires_grad"]),
        parameter=_optional(bool, raw["parameter"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)


def _optional(make: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else make(value)
