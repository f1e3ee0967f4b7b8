"""The largest learning rate between two files, where a saved scheduler proves it.

A displacement bound needs the rates that were used, and two files only show two of them: a peak in
between breaks a bound that takes the larger.  A scheduler's state names its class by its keys; for
those of torch that only ever lower the rate the larger of the two is the maximum, whichever of
scheduler and save came first.  Any other key (a warm-up added by a subclass, say) means that
nothing is proved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What every scheduler of torch saves.
COMMON = frozenset(
    {
        "_get_lr_called_within_step",
        "_is_initial",
        "_last_lr",
        "_step_count",
        "base_lrs",
        "last_epoch",
        "verbose",
    }
)
#: StepLR, MultiStepLR, ExponentialLR, by what each saves besides.
_FALLING = (
    frozenset({"gamma", "step_size"}),
    frozenset({"gamma", "milestones"}),
    frozenset({"gamma"}),
)
_COSINE = frozenset({"T_max", "eta_min"})


def largest_rate(
    scheduler: Mapping[str, Any] | None, older: Mapping[str, Any], newer: Mapping[str, Any]
) -> float | None:
    """Return the largest rate used between the files, or None where it is not proved.

    Parameters
    ----------
    scheduler: the newer file's scheduler state as plain values.
    older, newer: the parameter's group settings.

    Recognised are StepLR, MultiStepLR and ExponentialLR with a gamma of at most 1, and
    CosineAnnealingLR up to its turn at T_max.
    """
    rates = [_number(group.get("lr")) for group in (older, newer)]
    if scheduler is None or not (_falls(scheduler) or _before_the_turn(scheduler)):
        return None
    known = [rate for rate in rates if rate is not None]
    return max(known) if len(known) == len(rates) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _falls(scheduler: Mapping[str, Any]) -> bool:
    gamma = _number(scheduler.get("gamma"))
    own = frozenset(scheduler) - COMMON
    return gamma is not None and 0 <= gamma <= 1 and own in _FALLING


def _before_the_turn(scheduler: Mapping[str, Any]) -> bool:
    turn, now = _number(scheduler.get("T_max")), _number(scheduler.get("last_epoch"))
    shaped = frozenset(scheduler) - COMMON == _COSINE
    return shaped and turn is not None and now is not None and now <= turn
