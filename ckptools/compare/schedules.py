"""Learning rates in closed form, from the state that a scheduler of torch saves.

A scheduler's class is known by the keys of its state.  torch's schedulers step by recursion, from
the rate that the group holds; the closed forms below are what that recursion gives from the base
rate when nothing else touched the group.  A state with any key that is not known has none.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

from ckptools.compare.bounds.schedule import COMMON

State = Mapping[str, Any]


def rate(scheduler: State, group: Mapping[str, Any], base: float) -> float | None:
    """Return the rate that a scheduler's state gives a group, or None where it is not known.

    Parameters
    ----------
    scheduler: the scheduler's state as plain values.
    group: the settings of the parameter group; OneCycleLR keeps its rates there.
    base: the group's base rate (``base_lrs``).

    Known are StepLR, MultiStepLR, ExponentialLR, ConstantLR, LinearLR, PolynomialLR,
    CosineAnnealingLR, CosineAnnealingWarmRestarts, OneCycleLR, and SequentialLR of these.
    """
    steps = number(scheduler.get("last_epoch"))
    form = _FORMS.get(frozenset(scheduler) - COMMON)
    if steps is None or steps < 0 or form is None:
        return None
    try:
        return form(scheduler, group, base, steps)
    except (TypeError, KeyError, ValueError, ZeroDivisionError, OverflowError, IndexError):
        return None  # a state with the right keys and odd values


def base_rates(scheduler: State) -> list[float] | None:
    """Return the base rate of each group, of a SequentialLR those of its last part."""
    found = scheduler.get("base_lrs")
    parts = scheduler.get("_schedulers")
    if found is None and isinstance(parts, list) and parts and isinstance(parts[-1], dict):
        found = parts[-1].get("base_lrs")
    if not isinstance(found, (list, tuple)):
        return None
    rates = [number(value) for value in found]
    return [value for value in rates if value is not None] if None not in rates else None


def number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None


def _step(state: State, group: State, base: float, steps: float) -> float:
    return float(base * state["gamma"] ** (steps // state["step_size"]))


def _multi_step(state: State, group: State, base: float, steps: float) -> float:
    milestones = state["milestones"]
    counted = milestones.items() if isinstance(milestones, dict) else ((m, 1) for m in milestones)
    passed = sum(int(times) for milestone, times in counted if float(milestone) <= steps)
    return float(base * state["gamma"] ** passed)


def _exponential(state: State, group: State, base: float, steps: float) -> float:
    return float(base * state["gamma"] ** steps)


def _constant(state: State, group: State, base: float, steps: float) -> float:
    return base * (1.0 if steps >= state["total_iters"] else float(state["factor"]))


def _linear(state: State, group: State, base: float, steps: float) -> float:
    start, end, total = state["start_factor"], state["end_factor"], state["total_iters"]
    return base * float(start + (end - start) * min(steps, total) / total)


def _polynomial(state: State, group: State, base: float, steps: float) -> float:
    total = state["total_iters"]
    return base * float((1 - min(steps, total) / total) ** state["power"])


def _cosine(state: State, group: State, base: float, steps: float) -> float:
    return _half_wave(base, float(state["eta_min"]), steps / state["T_max"])


def _restarts(state: State, group: State, base: float, steps: float) -> float:
    return _half_wave(base, float(state["eta_min"]), state["T_cur"] / state["T_i"])


def _half_wave(high: float, low: float, share: float) -> float:
    """Return the rate that falls from ``high`` to ``low`` on half a cosine."""
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def _one_cycle(state: State, group: State, base: float, steps: float) -> float | None:
    first = 0.0
    for phase in state["_schedule_phases"]:
        end = float(phase["end_step"])
        if steps <= end:
            share = (steps - first) / (end - first)
            start, stop = (float(group[phase[key]]) for key in ("start_lr", "end_lr"))
            if state.get("_anneal_func_type") == "linear":
                return start + (stop - start) * share
            return _half_wave(start, stop, share)
        first = end
    return None


def _sequential(state: State, group: State, base: float, steps: float) -> float | None:
    active = state["_schedulers"][bisect_right(state["_milestones"], steps)]
    return rate(active, group, base)


_FORMS: dict[frozenset[str], Callable[[State, State, float, float], float | None]] = {
    frozenset(keys.split()): form
    for keys, form in (
        ("step_size gamma", _step),
        ("milestones gamma", _multi_step),
        ("gamma", _exponential),
        ("factor total_iters", _constant),
        ("start_factor end_factor total_iters", _linear),
        ("total_iters power", _polynomial),
        ("T_max eta_min", _cosine),
        ("T_0 T_i T_mult eta_min T_cur", _restarts),
        ("total_steps _schedule_phases _anneal_func_type cycle_momentum", _one_cycle),
        ("total_steps _schedule_phases _anneal_func_type cycle_momentum use_beta1", _one_cycle),
        ("_schedulers _milestones", _sequential),
    )
}
