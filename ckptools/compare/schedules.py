"""Learning rates in closed form, from the state that a scheduler of torch saves.

A scheduler's class is known by the keys of its state.  torch's schedulers step by recursion, from
the rate that the group holds; the closed forms below are what that recursion gives from the base
rate when nothing else touched the group.  A state with any key that is not known has none.  What
LambdaLR and MultiplicativeLR multiply by is a function, which no file holds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ckptools.compare.bounds.schedule import COMMON
from ckptools.types.checkpoint import Checkpoint, OptimizerState, RunState
from ckptools.types.wording import say

State = Mapping[str, Any]

#: Keys of schedulers that cycle momentum which only some versions of torch save.
_SOMETIMES = frozenset(
    {"use_beta1", "base_momentums", "max_momentums", "_scale_fn_ref", "_scale_fn_custom"}
)
_FUNCTIONS = frozenset({"lr_lambdas"})


class _At(NamedTuple):
    """A scheduler's state at one of its groups, ``steps`` calls after its start."""

    state: State
    group: State
    base: float
    place: int
    steps: float


def schedulers(run: RunState) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the saved schedulers, each with what to call it."""
    state = run.scheduler or {}
    if "last_epoch" in state or "base_lrs" in state or "_schedulers" in state:
        yield "scheduler", state
        return
    for key, value in state.items():
        if isinstance(value, dict):
            yield f"scheduler.{key}", value


def scheduled(checkpoint: Checkpoint) -> Iterator[tuple[OptimizerState, dict[str, Any]]]:
    """Iterate over the optimizers with the scheduler of each.

    One belongs to one; lists of one length (Lightning's) belong together in order, where the
    schedulers have as many groups as their optimizers.
    """
    found = list(schedulers(checkpoint.run))
    optimizers = checkpoint.optimizers
    listed = all(key.rpartition(".")[2].isdigit() for key, _ in found)
    if len(found) != len(optimizers) or not (listed or len(found) == 1):
        return
    for optimizer, (_, state) in zip(optimizers, found, strict=True):
        bases = base_rates(state)
        if bases is None or len(bases) == len(optimizer.groups):
            yield optimizer, state


def rate(scheduler: State, group: State, base: float, index: int = 0) -> float | None:
    """Return the rate that a scheduler's state gives a group, or None where it is not known.

    Parameters
    ----------
    scheduler: the scheduler's state as plain values.
    group: the settings of the parameter group; OneCycleLR and SWALR keep rates there.
    base: the group's base rate (``base_lrs``).
    index: the group's place, of which CyclicLR keeps a highest rate.

    Known are StepLR, MultiStepLR, ExponentialLR, ConstantLR, LinearLR, PolynomialLR,
    CosineAnnealingLR, CosineAnnealingWarmRestarts, OneCycleLR, CyclicLR without a function of its
    own, SWALR at its end, SequentialLR of these, and ChainedScheduler of those that multiply.
    """
    steps, form = calls(scheduler), _FORMS.get(_own_keys(scheduler))
    if steps is None or steps < 0 or form is None:
        return None
    try:
        return form(_At(scheduler, group, base, index, steps))
    except (TypeError, KeyError, ValueError, ZeroDivisionError, OverflowError, IndexError):
        return None  # a state with the right keys and odd values


def calls(scheduler: State) -> float | None:
    """Return how often a scheduler was stepped, a chained one by its first part."""
    if "last_epoch" not in scheduler and _parts(scheduler):
        return number(_parts(scheduler)[0].get("last_epoch"))
    return number(scheduler.get("last_epoch"))


def base_rates(scheduler: State) -> list[float] | None:
    """Return the base rate of each group, of a scheduler with parts those of its last part."""
    found = scheduler.get("base_lrs")
    if found is None and _parts(scheduler):
        found = _parts(scheduler)[-1].get("base_lrs")
    if not isinstance(found, (list, tuple)):
        return None
    rates = [number(value) for value in found]
    return [value for value in rates if value is not None] if None not in rates else None


def parts_apart(scheduler: State) -> list[float] | None:
    """Return the calls of the parts of a scheduler, where they contradict each other, else None.

    The parts of a chained scheduler are stepped together; of a sequential one the active part
    counts from its milestone on, and those before it up to theirs.
    """
    found = [number(part.get("last_epoch")) for part in _parts(scheduler)]
    counts = [one for one in found if one is not None]
    if not counts or len(counts) != len(found):
        return None
    if "_milestones" not in scheduler:
        return counts if len(set(counts)) > 1 else None
    steps, milestones = number(scheduler.get("last_epoch")), scheduler["_milestones"]
    if steps is None or not isinstance(milestones, (list, tuple)):
        return None
    edges = [0, *milestones, math.inf]
    due = [
        min(steps, last - 1) - first if first <= steps else None for first, last in pairwise(edges)
    ]
    if len(due) != len(counts):
        return None
    agree = all(one is None or one == count for one, count in zip(due, counts, strict=True))
    return None if agree else counts


class OddFactors(NamedTuple):
    """Groups whose rate is another part of its base rate than that of the others.

    Attributes
    ----------
    usual: the part that most groups have; of two groups the first one's.
    odd: the parts of the others, by group.
    groups: how many were compared.
    """

    usual: float
    odd: dict[int, float]
    groups: int

    @property
    def outvoted(self) -> bool:
        """Whether more groups agree than not; otherwise either side may be at fault."""
        return 2 * len(self.odd) < self.groups


def odd_factors(scheduler: State, rates: Sequence[float]) -> OddFactors | None:
    """Compare the groups of LambdaLR and MultiplicativeLR; None for any other scheduler.

    None, too, where the functions of the groups are known to differ.
    """
    functions, bases = scheduler.get("lr_lambdas"), base_rates(scheduler)
    if _own_keys(scheduler) != _FUNCTIONS or not isinstance(functions, list) or bases is None:
        return None
    if len(rates) != len(bases) or any(one != functions[0] for one in functions):
        return None
    factors = {i: lr / base for i, (lr, base) in enumerate(zip(rates, bases, strict=True)) if base}
    if not factors:
        return None
    most = max((_alike(factor, factors) for factor in factors.values()), key=len)
    odd = {i: factor for i, factor in factors.items() if i not in most}
    return OddFactors(factors[most[0]], odd, len(factors))


def _alike(factor: float, factors: Mapping[int, float]) -> list[int]:
    return [i for i, one in factors.items() if math.isclose(one, factor, rel_tol=1e-6)]


def not_replayed(checkpoint: Checkpoint) -> Iterator[str]:
    """Iterate over what cannot be held against a saved schedule, in words."""
    for key, state in schedulers(checkpoint.run):
        if any(_own_keys(one) == _FUNCTIONS for one in (state, *_parts(state))):
            yield say(
                "{key}: its learning rates come from a function, which no file holds", key=key
            )


def _own_keys(scheduler: State) -> frozenset[str]:
    return frozenset(scheduler) - COMMON - _SOMETIMES


def _parts(scheduler: State) -> list[dict[str, Any]]:
    found = scheduler.get("_schedulers")
    whole = isinstance(found, list) and all(isinstance(part, dict) for part in found)
    return found if whole and isinstance(found, list) else []


def number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None


def _step(at: _At) -> float:
    return float(at.base * at.state["gamma"] ** (at.steps // at.state["step_size"]))


def _multi_step(at: _At) -> float:
    milestones = at.state["milestones"]
    counted = milestones.items() if isinstance(milestones, dict) else ((m, 1) for m in milestones)
    passed = sum(int(times) for milestone, times in counted if float(milestone) <= at.steps)
    return float(at.base * at.state["gamma"] ** passed)


def _exponential(at: _At) -> float:
    return float(at.base * at.state["gamma"] ** at.steps)


def _constant(at: _At) -> float:
    return at.base * (1.0 if at.steps >= at.state["total_iters"] else float(at.state["factor"]))


def _linear(at: _At) -> float:
    start, end, total = (at.state[key] for key in ("start_factor", "end_factor", "total_iters"))
    return at.base * float(start + (end - start) * min(at.steps, total) / total)


def _polynomial(at: _At) -> float:
    total = at.state["total_iters"]
    return at.base * float((1 - min(at.steps, total) / total) ** at.state["power"])


def _cosine(at: _At) -> float:
    return _half_wave(at.base, float(at.state["eta_min"]), at.steps / at.state["T_max"])


def _restarts(at: _At) -> float:
    return _half_wave(at.base, float(at.state["eta_min"]), at.state["T_cur"] / at.state["T_i"])


def _half_wave(high: float, low: float, share: float) -> float:
    """Return the rate that falls from ``high`` to ``low`` on half a cosine."""
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def _one_cycle(at: _At) -> float | None:
    first = 0.0
    for phase in at.state["_schedule_phases"]:
        end = float(phase["end_step"])
        if at.steps <= end:
            share = (at.steps - first) / (end - first)
            start, stop = (float(at.group[phase[key]]) for key in ("start_lr", "end_lr"))
            if at.state.get("_anneal_func_type") == "linear":
                return start + (stop - start) * share
            return _half_wave(start, stop, share)
        first = end
    return None


def _cyclic(at: _At) -> float | None:
    if at.state.get("_scale_fn_custom") is not None:
        return None
    passed, turn = at.steps / float(at.state["total_size"]), float(at.state["step_ratio"])
    cycle = math.floor(1 + passed)
    place = 1 + passed - cycle
    height = place / turn if place <= turn else (place - 1) / (turn - 1)
    scale: float = {
        "triangular": 1.0,
        "triangular2": 0.5 ** (cycle - 1),
        "exp_range": float(at.state["gamma"]) ** at.steps,
    }[at.state["mode"]]
    return at.base + (float(at.state["max_lrs"][at.place]) - at.base) * height * scale


def _averaging(at: _At) -> float | None:
    """SWALR starts from the rate it found, which no file holds; its end is known."""
    return float(at.group["swa_lr"]) if at.steps >= max(1, at.state["anneal_epochs"]) else None


def _sequential(at: _At) -> float | None:
    active = at.state["_schedulers"][bisect_right(at.state["_milestones"], at.steps)]
    return rate(active, at.group, at.base, at.place)


def _chained(at: _At) -> float | None:
    """Return the base rate times what each part multiplies it by; other parts have no form."""
    found = at.base
    for part in _parts(at.state):
        keys, turn = _own_keys(part), part.get("T_max", math.inf)
        falls = keys == _COSINE and part["eta_min"] == 0 and at.steps <= turn
        one = at._replace(state=part)
        if at.base == 0 or not (keys in _FACTORS or falls):
            return None
        found *= (_FORMS[keys](one) or 0.0) / at.base
    return found


_COSINE = frozenset({"T_max", "eta_min"})
_FACTORS: dict[frozenset[str], Callable[[_At], float]] = {
    frozenset(keys.split()): form
    for keys, form in (
        ("step_size gamma", _step),
        ("milestones gamma", _multi_step),
        ("gamma", _exponential),
        ("factor total_iters", _constant),
        ("start_factor end_factor total_iters", _linear),
        ("total_iters power", _polynomial),
    )
}
_FORMS: dict[frozenset[str], Callable[[_At], float | None]] = {
    **_FACTORS,
    _COSINE: _cosine,
    **{
        frozenset(keys.split()): form
        for keys, form in (
            ("T_0 T_i T_mult eta_min T_cur", _restarts),
            ("total_steps _schedule_phases _anneal_func_type cycle_momentum", _one_cycle),
            ("max_lrs total_size step_ratio mode gamma scale_mode cycle_momentum", _cyclic),
            ("_anneal_strategy anneal_epochs", _averaging),
            ("_schedulers _milestones", _sequential),
            ("_schedulers", _chained),
        )
    },
}
