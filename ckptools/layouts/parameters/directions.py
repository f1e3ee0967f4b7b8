"""In which direction an optimizer's last step moved a parameter, from its saved state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Doubles: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Direction:
    """Minus a step, in units of the learning rate.

    Attributes
    ----------
    values: flat.
    signed: whether signs are known (where only squares are kept they are not).
    decay: what times the older weight comes on top (decoupled weight decay).
    """

    values: Doubles
    signed: bool
    decay: float


def direction(
    slots: Arrays, older: Arrays | None, settings: Mapping[str, Any], step: float | None
) -> Direction | None:
    """Return the direction of the step that led to ``slots``, or None where they do not tell.

    Parameters
    ----------
    slots, older: a state in the newer and in the older file, by slot name.
    settings: of the parameter's group.
    step: the parameter's own step count.
    """
    first, second = slots.get("exp_avg"), slots.get("max_exp_avg_sq", slots.get("exp_avg_sq"))
    if first is not None and second is not None:
        decay = _number(settings, "weight_decay", 0.0) if _decoupled(settings) else 0.0
        return Direction(_adam(first, second, settings, step), True, decay)
    if "momentum_buffer" in slots:
        return _momentum(slots, older, settings)
    if first is not None:
        return _lion(first, older, settings)
    for name, rate in (("square_avg", _number(settings, "alpha", 0.99)), ("sum", None)):
        if name in slots and older is not None and name in older:
            return _squares(_wide(slots[name]), _wide(older[name]), rate)
    return None


def _wide(values: NDArray[Any]) -> Doubles:
    return np.asarray(values).reshape(-1).astype(np.float64)


def _number(settings: Mapping[str, Any], key: str, default: float) -> float:
    value = settings.get(key)
    return float(value) if isinstance(value, (int, float)) else default


def _decoupled(settings: Mapping[str, Any]) -> bool:
    return settings.get("decoupled_weight_decay") is not False


def _adam(
    first: NDArray[Any], second: NDArray[Any], settings: Mapping[str, Any], step: float | None
) -> Doubles:
    betas = settings.get("betas")
    beta1, beta2 = betas if isinstance(betas, (tuple, list)) and len(betas) == 2 else (0.9, 0.999)
    t = step if step is not None and step > 0 else math.inf
    with np.errstate(all="ignore"):
        root = np.sqrt(_wide(second) / (1 - beta2**t)) + _number(settings, "eps", 1e-8)
        return np.asarray(_wide(first) / (1 - beta1**t) / root)


def _momentum(slots: Arrays, older: Arrays | None, settings: Mapping[str, Any]) -> Direction | None:
    """Return SGD's direction; weight decay is inside the buffer."""
    buffer, momentum = _wide(slots["momentum_buffer"]), _number(settings, "momentum", 0.9)
    if settings.get("nesterov") is not True:
        return Direction(buffer, True, 0.0)
    if older is None or "momentum_buffer" not in older:
        return Direction(buffer, True, 0.0)
    dampening = _number(settings, "dampening", 0.0)
    gradient = (buffer - momentum * _wide(older["momentum_buffer"])) / (1 - dampening)
    return Direction(gradient + momentum * buffer, True, 0.0)


def _lion(
    first: NDArray[Any], older: Arrays | None, settings: Mapping[str, Any]
) -> Direction | None:
    """Return Lion's signs: the gradient follows from both files' moments."""
    if older is None or "exp_avg" not in older:
        return None
    betas = settings.get("betas")
    beta1, beta2 = betas if isinstance(betas, (tuple, list)) and len(betas) == 2 else (0.9, 0.99)
    before = _wide(older["exp_avg"])
    gradient = (_wide(first) - beta2 * before) / (1 - beta2)
    signs = np.sign(beta1 * before + (1 - beta1) * gradient)
    return Direction(signs, True, _number(settings, "weight_decay", 0.0))


def _squares(newer: Doubles, before: Doubles, rate: float | None) -> Direction:
    """Return |g|/√sum: for a mean of squares with its rate, for a plain sum without."""
    fresh = newer - before if rate is None else (newer - rate * before) / (1 - rate)
    with np.errstate(all="ignore"):
        values = np.sqrt(np.maximum(fresh, 0)) / np.sqrt(newer)
    return Direction(np.nan_to_num(values), False, 0.0)
