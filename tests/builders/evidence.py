"""Evidence made from arrays, without a file and without the code that measures files.

The statistics here are written the plain way, in float64, so that a rule is tested against what
the types promise and not against what a kernel happens to give.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
from scipy.stats import kstest

from ckptools.errors import CorruptFile
from ckptools.names.initializers import Initializer, candidates
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
from ckptools.types.evidence import Evidence
from ckptools.types.measurements import Measurements, SlotMeasures, Spectrum, Statistics
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import Pairs

PATH = "checkpoint_epoch_12.pth"

_NUMPY = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "int64": np.int64,
    "uint8": np.uint8,
    "bool": np.bool_,
}
_BLOCK = re.compile(r"^(?:(?P<stack>.*?)\.)?(?P<block>\d+)\.(?P<rest>.+)$")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "mask", "inv_freq")
_ROLES = (
    (r"lora_", "lora"),
    (r"norm|ln_?\d|bn\d", "norm"),
    (r"embed|wte|wpe", "embedding"),
    (r"attn|attention|q_proj|k_proj|v_proj|o_proj", "attention"),
    (r"mlp|fc\d|linear\d", "mlp"),
    (r"conv", "conv"),
    (r"head", "head"),
)


class Bytes:
    """A source that only has an identity; a rule that takes a sample finds that it is gone."""

    name = PATH
    size = 1 << 30
    identity = (PATH,)

    def read_at(self, offset: int, length: int) -> bytes:
        """Refuse."""
        raise CorruptFile("there is no file")

    def readinto_at(self, offset: int, buffer: object) -> None:
        """Refuse."""
        raise CorruptFile("there is no file")


def place(name: str) -> tuple[str | None, int | None, str]:
    """Return (stack, block, module) of a name."""
    found = _BLOCK.match(name)
    if found is None:
        return None, None, name.partition(".")[0]
    stack = found["stack"] or ""
    return stack, int(found["block"]), f"{stack}.{found['block']}".lstrip(".")


def role(name: str) -> str | None:
    """Return the role of a name."""
    return next((word for pattern, word in _ROLES if re.search(pattern, name)), None)


def statistics_of(
    values: np.ndarray, dtype: str = "float32", *, spectrum: bool = False
) -> Statistics:
    """Return the statistics of an array, computed directly."""
    stored = np.asarray(values).astype(_NUMPY[dtype])
    flat = stored.astype(np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    floating = stored.dtype.kind == "f" or dtype.startswith(("bfloat", "float"))
    matrix = None
    if stored.ndim > 1 and stored.size:
        matrix = stored.reshape(stored.shape[0], -1).astype(np.float64)
    gap, isolated = _gap(finite)
    return Statistics(
        numel=flat.size,
        finite=finite.size,
        nan=int(np.isnan(flat).sum()),
        positive_inf=int(np.isposinf(flat).sum()),
        negative_inf=int(np.isneginf(flat).sum()),
        zeros=int((finite == 0).sum()),
        subnormal=_subnormal(finite, dtype) if floating else 0,
        **_moments(finite),
        exponent_gap=gap,
        isolated=isolated,
        near_overflow=_near_overflow(finite, dtype) if floating else 0,
        digest=hashlib.sha256(stored.tobytes() + repr((stored.shape, dtype)).encode()).hexdigest(),
        **_lines(matrix),
        spectrum=_spectrum(matrix) if spectrum and matrix is not None and floating else None,
    )


def _moments(finite: np.ndarray) -> dict[str, Any]:
    if not finite.size:
        return {}
    mean, std = float(finite.mean()), float(finite.std())
    centred = finite - mean
    higher = {
        "skewness": float((centred**3).mean() / std**3),
        "kurtosis": float((centred**4).mean() / std**4),
    }
    levels = (1, 5, 25, 50, 75, 95, 99)
    return {
        "mean": mean,
        "std": std,
        "rms": float(np.sqrt((finite**2).mean())),
        "l2_norm": float(np.sqrt((finite**2).sum())),
        "min": float(finite.min()),
        "max": float(finite.max()),
        "abs_max": float(np.abs(finite).max()),
        "quantiles": {f"p{q:02d}": float(np.percentile(finite, q)) for q in levels},
        "abs_p999": float(np.percentile(np.abs(finite), 99.9)),
        **(higher if std > 0 else {}),
    }


def _lines(matrix: np.ndarray | None) -> dict[str, Any]:
    if matrix is None:
        return {}
    return {
        "rows": matrix.shape[0],
        "columns": matrix.shape[1],
        "dead_rows": int((matrix == 0).all(axis=1).sum()),
        "dead_columns": int((matrix == 0).all(axis=0).sum()),
    }


def _gap(finite: np.ndarray) -> tuple[int, int]:
    """Return the empty exponents below the largest values, at most four, and how many those are."""
    magnitudes = np.sort(np.abs(finite[finite != 0]))[::-1]
    exponents = np.frexp(magnitudes)[1]
    best = (0, 0)
    for above in range(1, min(5, len(exponents))):
        gap = int(exponents[above - 1] - exponents[above]) - 1
        if gap > best[0]:
            best = (gap, above)
    return best


def _subnormal(finite: np.ndarray, dtype: str) -> int:
    tiny = float(ml_dtypes.finfo(_NUMPY[dtype]).smallest_normal)
    return int(((finite != 0) & (np.abs(finite) < tiny)).sum())


def _near_overflow(finite: np.ndarray, dtype: str) -> int:
    largest = float(ml_dtypes.finfo(_NUMPY[dtype]).max)
    return int((np.abs(finite) > largest / 2).sum())


def _spectrum(matrix: np.ndarray) -> Spectrum:
    known = np.nan_to_num(matrix, nan=0.0, posinf=0.0, neginf=0.0)
    values = np.linalg.svd(known, compute_uv=False)
    total = values.sum()
    share = values[values > 0] / total if total else np.ones(1)
    edge = known.std() * (np.sqrt(known.shape[0]) + np.sqrt(known.shape[1]))
    return Spectrum(
        rows=known.shape[0],
        columns=known.shape[1],
        spectral_norm=float(values[0]),
        stable_rank=float((values**2).sum() / values[0] ** 2) if values[0] else 0.0,
        effective_rank=float(np.exp(-(share * np.log(share)).sum())),
        edge_ratio=float(values[0] / edge) if edge else None,
        method="exact",
    )


def initializers_of(tensor: NamedTensor, values: np.ndarray) -> tuple[str, ...] | None:
    """Return the initialisers of a few usual kinds that the values are compatible with."""
    floating = values.dtype.kind == "f" and values.size > 0 and np.isfinite(values).all()
    known = candidates(tensor.name, values.shape, tensor.role, tensor.kind) if floating else ()
    flat = values.astype(np.float64).ravel()
    return tuple(one.name for one in known if _compatible(one, flat)) if known else None


def _compatible(one: Initializer, values: np.ndarray) -> bool:
    given = one.parameters
    if one.distribution == "constant":
        return bool((values == given["value"]).all())
    if not one.std or abs(values.std() / one.std - 1) > 0.2:
        return False
    if one.distribution == "uniform":
        width = given["high"] - given["low"]
        inside = values.min() >= given["low"] and values.max() <= given["high"]
        return (
            bool(inside)
            and kstest(values, "uniform", (given["low"], width), method="asymp").pvalue > 1e-3
        )
    if one.distribution == "normal":
        return bool(
            kstest(values, "norm", (given["mean"], given["std"]), method="asymp").pvalue > 1e-3
        )
    return False


def reference(shape: tuple[int, ...], dtype: str, storage: Storage) -> TensorRef:
    """Return a contiguous reference over the whole of ``storage``."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= max(size, 1)
    return TensorRef(dtype, shape, tuple(strides), 0, storage)


class Builder:
    """Gathers weights, slots and faults, and gives the evidence."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray] | None = None,
        *,
        dtype: str = "float32",
        dtypes: Mapping[str, str] | None = None,
        run: RunState | None = None,
        spectrum: bool = False,
        set: str = "model",
        prefixes: tuple[str, ...] = (),
        tied: Mapping[str, str] | None = None,
    ) -> None:
        self.spectrum = spectrum
        self.run = run or RunState()
        self.source = Bytes()
        self.sets: list[WeightSet] = []
        self.measures: dict[tuple[str, str], Statistics] = {}
        self.slots: dict[tuple[int, int], SlotMeasures] = {}
        self.optimizers: list[OptimizerState] = []
        self.faults: tuple[Fault, ...] = ()
        self.checksums: tuple[Fault, ...] | None = ()
        self.globals: tuple[GlobalUse, ...] = ()
        self.not_judged: tuple[str, ...] = ()
        self.root: Any = Pairs()
        self._number = 0
        if weights is not None:
            self.add_set(
                set, weights, dtype=dtype, dtypes=dtypes, prefixes=prefixes, tied=tied or {}
            )

    def add_set(
        self,
        set: str,
        weights: Mapping[str, np.ndarray],
        *,
        dtype: str = "float32",
        dtypes: Mapping[str, str] | None = None,
        prefixes: tuple[str, ...] = (),
        tied: Mapping[str, str] | None = None,
    ) -> Builder:
        """Add a weight set; ``tied`` maps a name to the one whose storage it shares."""
        tensors: list[NamedTensor] = []
        storages: dict[str, Storage] = {}
        for name, values in weights.items():
            own = (dtypes or {}).get(name, dtype if values.dtype.kind == "f" else str(values.dtype))
            owner = (tied or {}).get(name, name)
            storage = storages.setdefault(owner, self._storage(values, own))
            stack, block, module = place(name)
            tensors.append(
                NamedTensor(
                    name=name,
                    key="".join(prefixes) + name,
                    set=set,
                    ref=reference(values.shape, own, storage),
                    kind="buffer" if name.endswith(_BUFFERS) else "parameter",
                    stack=stack,
                    block=block,
                    module=module,
                    role=role(name),
                )
            )
            with np.errstate(all="ignore"):
                measured = statistics_of(values, own, spectrum=self.spectrum)
            fresh = initializers_of(tensors[-1], values)
            self.measures[set, name] = replace(measured, initializers=fresh)
        self.sets.append(WeightSet(set, tuple(tensors), prefixes))
        return self

    def _storage(self, values: np.ndarray, dtype: str) -> Storage:
        nbytes = values.size * np.dtype(_NUMPY[dtype]).itemsize
        self._number += 1
        return Storage(f"data/{self._number}", self.source, self._number * 64, nbytes, nbytes)  # type: ignore[arg-type]

    def add_adam(
        self,
        slots: Mapping[str, Mapping[str, np.ndarray]],
        *,
        step: float = 768.0,
        key: str = "optimizer_state_dict",
    ) -> Builder:
        """Add an AdamW state with the slots of each parameter, by its name."""
        states = []
        for position, (name, arrays) in enumerate(slots.items()):
            refs = {
                slot: reference(values.shape, "float32", self._storage(values, "float32"))
                for slot, values in arrays.items()
            }
            states.append(
                ParameterState(position, 0, position, refs, step, {}, bool(refs), name, "sure")
            )
            with np.errstate(all="ignore"):
                measured = {slot: statistics_of(values) for slot, values in arrays.items()}
            self.slots[len(self.optimizers), position] = SlotMeasures(measured)
        settings = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
        group = ParameterGroup(0, None, settings, tuple(range(len(states))))
        self.optimizers.append(
            OptimizerState(key, "AdamW", "model", (group,), tuple(states), "names")
        )
        return self

    def evidence(self, **parts: Any) -> Evidence:
        """Return the evidence; ``parts`` replace or add to its fields."""
        container = Container(
            path=PATH,
            format="torch-zip",
            size_bytes=1 << 20,
            root=self.root,
            globals=self.globals,
            faults=self.faults,
            not_judged=self.not_judged,
        )
        checkpoint = Checkpoint(
            path=PATH,
            container=container,
            layout="training-dict",
            weight_sets=tuple(self.sets),
            optimizers=tuple(self.optimizers),
            run=self.run,
        )
        whole = Evidence(
            checkpoint=checkpoint,
            measurements=Measurements(self.measures, self.slots),
            checksums=self.checksums,
        )
        return replace(whole, **parts)


def fault(kind: str, where: str = "data/3", *, scope: str = "container", **numbers: Any) -> Fault:
    """Return a fault as a reader would report it."""
    return Fault(kind, where, f"something is wrong ({kind})", scope, numbers)


def with_faults(faults: Iterable[Fault], *, checksums: Iterable[Fault] | None = ()) -> Evidence:
    """Return a healthy model in a container with these faults."""
    builder = Builder({"fc1.weight": np.random.default_rng(0).normal(size=(8, 8)) * 0.1})
    builder.faults = tuple(faults)
    builder.checksums = None if checksums is None else tuple(checksums)
    return builder.evidence()
