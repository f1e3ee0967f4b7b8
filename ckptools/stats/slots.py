"""Joint measures of a weight and the optimizer's memory of it, in the pass that reads them.

For Adam and its kin with stored moments m, v at the parameter's own step t::

    m_hat = m / (1 - beta1**t)     v_hat = v / (1 - beta2**t)     u = m_hat / (sqrt(v_hat) + eps)

``u`` is the direction of the next step if it brought no new gradient; AMSGrad divides by the
largest v so far; SGD and RMSprop with momentum move along their buffer, Lion along the signs of its
mean.  Decoupled weight decay is no part of the direction.  Eight-bit moments count as they decode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.layouts.parameters.blockwise import is_decoded, usual
from ckptools.sources.arrays import read_array
from ckptools.stats.families import DTYPES, Family, family
from ckptools.stats.kernel import Engine
from ckptools.stats.plain import BLOCK
from ckptools.types.checkpoint import OptimizerState, ParameterState
from ckptools.types.measurements import SlotMeasures, Statistics
from ckptools.types.tensor import FLOATING, TensorRef

#: optimizer kinds with first and second moments as Adam keeps them
ADAM = frozenset({"Adam", "AdamW", "AMSGrad", "Adam8bit", "Adam32bit"})
#: those that move along a buffer, where they have one
_BUFFERED = frozenset({"SGD", "RMSprop", "SGD8bit", "SGD32bit"})
_LION = frozenset({"Lion", "Lion8bit", "Lion32bit"})
_TINY = 1e-300
_BFLOAT16 = DTYPES["bfloat16"]


@dataclass(frozen=True, slots=True)
class Direction:
    """How the next step follows from the slots.

    Attributes
    ----------
    first, second: slots of the numerator and the denominator (None for SGD and Lion).
    signs: whether only the signs of the numerator count.
    gain: 1 / (1 - beta1**t), or 1.
    root: 1 / sqrt(1 - beta2**t), or 1.
    eps, rate: as in the parameter group; rate is None where the file does not say.
    """

    first: str
    second: str | None
    gain: float = 1.0
    root: float = 1.0
    eps: float = 0.0
    rate: float | None = None
    signs: bool = False


class Joint:
    """Sums over weight and direction, chunk by chunk; ``weight`` None when it is unknown.

    The fourth place of the sums is no sum but the largest quotient of the moments.
    """

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.sums = np.zeros(4)

    def add(
        self,
        engine: Engine,
        weight: NDArray[Any] | None,
        first: NDArray[Any],
        second: NDArray[Any] | None,
    ) -> None:
        """Take in the next elements of each."""
        known = first if weight is None else weight
        if second is None:
            for start in range(0, first.size, BLOCK):
                part = slice(start, start + BLOCK)
                self._add_momentum(known[part], first[part])
            return
        w, m, v = _alike(known, first, second)
        engine.join_adam(w, m, v, self.direction.root, self.direction.eps, self.sums)

    def _add_momentum(self, weight: NDArray[Any], buffer: NDArray[Any]) -> None:
        with np.errstate(invalid="ignore"):
            w, u = weight.astype(np.float64), buffer.astype(np.float64)
            u = np.sign(u) if self.direction.signs else u
        kept = np.isfinite(w) & np.isfinite(u)
        w, u = w[kept], u[kept]
        self.sums[:3] += (u * u).sum(), (w * u).sum(), u.size

    def merge(self, other: Joint) -> None:
        """Add the sums of another run."""
        self.sums[:3] += other.sums[:3]
        self.sums[3] = max(self.sums[3], other.sums[3])


def joined(*numbers: np.dtype[Any]) -> tuple[np.dtype[Any], ...]:
    """Return as which types an engine takes weight, first and second moment of these types."""
    return tuple(part.dtype for part in _alike(*(np.empty(0, number) for number in numbers)))


def _alike(*parts: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return all parts as an engine takes them: of single precision, or all of double."""
    if any(part.dtype == np.float64 for part in parts):
        return tuple(part.astype(np.float64, copy=False) for part in parts)
    return tuple(_single(part) for part in parts)


def _single(part: NDArray[Any]) -> NDArray[Any]:
    if part.dtype == np.float32:
        return part
    if part.dtype == _BFLOAT16:
        return part.view(np.uint16)
    with np.errstate(invalid="ignore"):
        return part.astype(np.float32)


def measured(optimizer: OptimizerState, state: ParameterState) -> Mapping[str, TensorRef]:
    """Return what is measured of a state: its slots, eight-bit codes and tables as they decode.

    The maxima of the blocks are measured, too: no element passes them.
    """
    held = usual(optimizer.kind, state.slots)
    if held is state.slots:
        return held
    raw = {name: ref for name, ref in state.slots.items() if not name.startswith("qmap")}
    coded = [name for name, ref in raw.items() if ref.dtype == "uint8"]
    done = sum(map(is_decoded, held.values())) == len(coded)
    return {**{name: ref for name, ref in raw.items() if not (done and name in coded)}, **held}


def direction(optimizer: OptimizerState, state: ParameterState) -> Direction | None:
    """Return how ``state`` will move its parameter, or None where that is not known."""
    settings = _settings(optimizer, state)
    rate = _number(settings.get("lr"))
    held = usual(optimizer.kind, state.slots)
    if optimizer.kind in _BUFFERED and _floating(held, "momentum_buffer"):
        return Direction("momentum_buffer", None, rate=rate)
    if optimizer.kind in _LION and _floating(held, "exp_avg"):
        return Direction("exp_avg", None, rate=rate, signs=True)
    if optimizer.kind not in ADAM or not _floating(held, "exp_avg", "exp_avg_sq"):
        return None
    beta1, beta2 = _betas(settings)
    eps = _number(settings.get("eps"))
    corrections = (_correction(beta1, state.step), _correction(beta2, state.step))
    if eps is None or corrections[0] is None or corrections[1] is None:
        return None
    second = "max_exp_avg_sq" if _floating(held, "max_exp_avg_sq") else "exp_avg_sq"
    return Direction(
        "exp_avg", second, 1 / corrections[0], 1 / math.sqrt(corrections[1]), eps, rate
    )


def measures(
    optimizer: OptimizerState,
    state: ParameterState,
    statistics: dict[str, Statistics],
    joint: Joint | None,
    weight: Statistics | None,
) -> SlotMeasures:
    """Return the measures of one state; ``weight`` is None where it took no part in ``joint``."""
    norm = gradient_norm(optimizer, state, statistics.get("exp_avg_sq"))
    if joint is None or not joint.sums[2]:
        return SlotMeasures(statistics, gradient_norm=norm)
    found = joint.direction
    squares, product, count, quotient = joint.sums.tolist()
    length = found.gain * math.sqrt(squares)
    size = weight.l2_norm if weight is not None else None
    ratio = cosine = None
    if size:
        ratio = None if found.rate is None else found.rate * length / size
        cosine = -found.gain * product / (length * size) if length > _TINY else None
    return SlotMeasures(
        statistics,
        next_update_ratio=ratio,
        direction_rms=None if found.second is None else length / math.sqrt(count),
        cosine=cosine,
        gradient_norm=norm,
        moment_ratio=_root(quotient) if _comparable(found, statistics) else None,
    )


def _root(quotient: float) -> float | None:
    return math.sqrt(quotient) if math.isfinite(quotient) else None


def _comparable(found: Direction, statistics: Mapping[str, Statistics]) -> bool:
    """Return whether every first moment could be divided by the root of its own second moment."""
    if found.second != "exp_avg_sq":
        return False
    both = [statistics[slot] for slot in (found.first, found.second) if slot in statistics]
    whole = len(both) == 2 and all(one.complete and one.finite == one.numel for one in both)
    return whole and (both[1].min or 0.0) >= 0


def gradient_norm(
    optimizer: OptimizerState, state: ParameterState, second: Statistics | None
) -> float | None:
    """Return sqrt(sum v / (1 - beta2**t)), the RMS gradient norm of the parameter."""
    if optimizer.kind not in ADAM or second is None or second.mean is None:
        return None
    correction = _correction(_betas(_settings(optimizer, state))[1], state.step)
    total = second.mean * second.finite
    return math.sqrt(total / correction) if correction and total >= 0 else None


def _correction(beta: float | None, step: float | None) -> float | None:
    """Return 1 - beta**step, None where either is missing or makes no sense."""
    if beta is None or step is None or not (0 <= beta < 1 and math.isfinite(step) and step > 0):
        return None
    return -math.expm1(step * math.log(beta)) if beta else 1.0


def _settings(optimizer: OptimizerState, state: ParameterState) -> Mapping[str, Any]:
    for group in optimizer.groups:
        if group.index == state.group:
            return group.settings
    return {}


def _betas(settings: Mapping[str, Any]) -> tuple[float | None, float | None]:
    betas = settings.get("betas")
    if not isinstance(betas, (list, tuple)) or len(betas) != 2:
        return None, None
    return _number(betas[0]), _number(betas[1])


def _number(value: Any) -> float | None:
    """Return a plain number, also out of a tensor of one element; None for anything else."""
    if isinstance(value, TensorRef):
        known = value.readable and value.numel == 1 and value.dtype in FLOATING
        return float(read_array(value).astype(np.float64).reshape(())) if known else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _floating(held: Mapping[str, TensorRef], *names: str) -> bool:
    """Return whether all these slots are there, and of floating-point numbers."""
    found = [held[name] for name in names if name in held]
    if len(found) < len(names):
        return False
    known: list[Family | None] = [family(ref.dtype) for ref in found]
    return all(ref.dtype in FLOATING for ref in found) and None not in known
