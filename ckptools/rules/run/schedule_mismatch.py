"""RUN102: learning rates that are not those that the saved scheduler last gave."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose
from typing import Any

from ckptools.compare.schedules import scheduled
from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule("RUN102", "schedule-mismatch", severity="warning", confidence="hint", needs=("checkpoint",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """A parameter group's learning rate is not the one that the saved scheduler last gave.

    What it means
        The scheduler's _last_lr and the group's lr differ by more than a millionth.

    Why it matters
        After resuming, the rate jumps at the scheduler's next step, or stays wrong: a scheduler
        that was built after the optimizer's state was loaded leaves such files behind.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). A trainer that sets
        rates by hand beside a scheduler, or scales them after it, does so in every file.

    What to do
        Build the optimizer, then the scheduler, then load both states; look at the rates of the
        files before this one.

    References
        torch.optim.lr_scheduler (get_last_lr is what the last step wrote into the groups).
    """
    assert evidence.checkpoint is not None
    for optimizer, scheduler in scheduled(evidence.checkpoint):
        rates = scheduler.get("_last_lr")
        if not isinstance(rates, (list, tuple)) or len(rates) != len(optimizer.groups):
            continue
        for group, rate in zip(optimizer.groups, rates, strict=True):
            lr = group.settings.get("lr")
            if _differ(lr, rate):
                yield found(
                    f"{optimizer.key}.param_groups[{group.index}]",
                    say(
                        "learning rate {lr:.4g}, while the scheduler last gave {rate:.4g}",
                        lr=lr,
                        rate=rate,
                    ),
                    evidence={"lr": lr, "last_lr": rate, "group": group.index},
                    advice=advice.history(evidence),
                )


def _differ(one: Any, other: Any) -> bool:
    numbers = all(isinstance(value, (int, float)) for value in (one, other))
    return numbers and not isclose(one, other, rel_tol=1e-6, abs_tol=1e-15)
