"""The parts of the evidence that a rule may need, and why one is missing."""

from __future__ import annotations

from collections.abc import Callable

from ckptools.types.evidence import Evidence
from ckptools.types.wording import say

#: weights and optimizer states of at most so many bytes are read a second time
REREAD = 256 << 20


def _is_small(evidence: Evidence) -> bool:
    checkpoint = evidence.checkpoint
    if checkpoint is None:
        return False
    states = (state for one in checkpoint.optimizers for state in one.states)
    slots = sum(ref.nbytes for state in states for ref in state.slots.values())
    return slots + sum(tensor.ref.nbytes for tensor in checkpoint.tensors()) <= REREAD


def _has_slots(evidence: Evidence) -> bool:
    return evidence.measurements is not None and bool(evidence.measurements.slots)


def _has_spectrum(evidence: Evidence) -> bool:
    tensors = evidence.measurements.tensors.values() if evidence.measurements else ()
    return any(statistics.spectrum is not None for statistics in tensors)


#: need -> (whether the evidence has it, the reason for which a rule is skipped without it)
NEEDS: dict[str, tuple[Callable[[Evidence], bool], str]] = {
    "checkpoint": (
        lambda evidence: evidence.checkpoint is not None,
        say("no checkpoint was given"),
    ),
    "measurements": (
        lambda evidence: evidence.measurements is not None,
        say("values were not measured (headers only)"),
    ),
    "slots": (_has_slots, say("no optimizer state was measured")),
    "reread": (
        _is_small,
        say("weights and states of more than 256 MiB are not read a second time"),
    ),
    "spectrum": (_has_spectrum, say("singular values were not computed (--spectrum)")),
    "checksums": (
        lambda evidence: evidence.checksums is not None,
        say("checksums were not verified (--verify)"),
    ),
    "earlier": (lambda evidence: bool(evidence.earlier), say("no earlier checkpoint was given")),
    "changes": (lambda evidence: bool(evidence.changes), say("nothing was compared with it")),
    "before": (
        lambda evidence: bool(evidence.before),
        say("no update before the last one is known (ckptools timeline)"),
    ),
    "past": (
        lambda evidence: len(evidence.earlier) > 1,
        say("no checkpoint before the earlier one was given (ckptools timeline)"),
    ),
    "states": (
        lambda evidence: evidence.states is not None,
        say("optimizer states were not held against their bounds"),
    ),
    "log": (lambda evidence: evidence.log is not None, say("no training log was given")),
    "experiment": (
        lambda evidence: evidence.experiment is not None,
        say("nothing was re-run (ckptools rerun)"),
    ),
}


def missing(needs: tuple[str, ...], evidence: Evidence) -> str | None:
    """Return why a rule with these needs cannot run, or None when it can."""
    reasons = (NEEDS[need][1] for need in needs if not NEEDS[need][0](evidence))
    return next(reasons, None)
