"""What the loops of Lightning count, beside what optimizers and schedulers count themselves."""

from __future__ import annotations

from ckptools.types.checkpoint import RunState

_EPOCH = "loops.epoch_loop."
_AUTOMATIC = _EPOCH + "automatic_optimization.optim_progress.optimizer.step.total.completed"
_MANUAL = _EPOCH + "manual_optimization.optim_step_progress.total.completed"
_SCHEDULERS = _EPOCH + "scheduler_progress.total.completed"


def optimizer_steps(run: RunState) -> int | None:
    """Return the steps that the loops asked of all optimizers; None without such a counter.

    A loss scaler may have skipped some of them.
    """
    counted = [run.counters[key] for key in (_AUTOMATIC, _MANUAL) if key in run.counters]
    return int(sum(counted)) or None


def scheduler_steps(run: RunState) -> int | None:
    """Return the steps that the loops took of all schedulers; None for none, as by hand."""
    return int(run.counters.get(_SCHEDULERS, 0)) or None
