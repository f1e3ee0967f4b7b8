"""RUN113: settings of the optimizer, the learning rate aside, that changed within a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

#: What no scheduler of torch moves; it moves learning rates and betas or momentum.
_SETTINGS = ("weight_decay", "eps", "amsgrad", "nesterov", "dampening", "maximize", "alpha")
#: Relations in which one training wrote both files.
_ONE_RUN = frozenset({"same-run", "direct-successor"})

_Place = tuple[str, str, int]


@rule("RUN113", "changed-setting", severity="note", confidence="hint", needs=("changes",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """Weight decay or another setting of the optimizer is not that of the earlier file.

    What it means
        Both files are of one run, and a parameter group has another weight decay, eps or variant
        of its optimizer than before: somebody resumed with other settings, or by code with
        other defaults.

    Why it matters
        Saved settings win over those in the code when the state is loaded, and new ones show only
        after hundreds of steps: a regularisation that was switched off in silence looks like the
        model's own drift.

    False alarms
        Measured: 0 of 498 healthy pairs (below 0.60 % with 95 % confidence). Schedules of the
        weight decay (DINO's grows along a cosine) move it in every epoch; with two earlier files
        at hand such a series is left alone.

    What to do
        Compare the commands of both parts of the run; ``ckptools assign`` sets a value back.

    References
        Loshchilov & Hutter 2019 (weight decay beside the learning rate).
    """
    change = evidence.changes[0]
    if change.relation.kind not in _ONE_RUN:
        return
    before, after = _settings(change.a), _settings(change.b)
    moved: dict[tuple[str, str, str, str], list[int]] = {}
    for (key, name, group), value in after.items():
        old = before.get((key, name, group), value)
        if old != value and not _scheduled(evidence, (key, name, group), old):
            moved.setdefault((key, name, str(old), str(value)), []).append(group)
    for (key, name, old, new), groups in moved.items():
        yield found(
            key,
            say(
                "{setting} was {before} and is {after}; parameter groups: {groups}",
                setting=name,
                before=old,
                after=new,
                groups=", ".join(map(str, groups)),
            ),
            evidence={"setting": name, "before": old, "after": new, "groups": groups[:100]},
            advice=advice.history(evidence),
        )


def _settings(checkpoint: Checkpoint) -> dict[_Place, Any]:
    """Return the settings by optimizer, name and group."""
    return {
        (optimizer.key, name, group.index): group.settings[name]
        for optimizer in checkpoint.optimizers
        for group in optimizer.groups
        for name in _SETTINGS
        if isinstance(group.settings.get(name), (int, float))
    }


def _scheduled(evidence: Evidence, place: _Place, value: Any) -> bool:
    """Return whether the setting had moved on the way to the earlier file, too."""
    older = [one.checkpoint for one in evidence.earlier[1:2] if one.checkpoint is not None]
    return any(_settings(one).get(place, value) != value for one in older)
