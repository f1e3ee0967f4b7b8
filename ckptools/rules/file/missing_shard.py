"""FIL105: part of a sharded checkpoint is not there."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import inspect
from ckptools.rules.file.faults import covers, faults, report
from ckptools.rules.registry import rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding

KINDS = covers(__name__, "missing-shard", "missing-tensor", "missing-storage")


@rule("FIL105", "missing-shard", severity="error", confidence="proof", needs=("checkpoint",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The checkpoint names a file, record or tensor that is not there.

    What it means
        The index of a sharded checkpoint, or the pickle of a single file, refers to content that
        does not exist.

    Why it matters
        The weights in it cannot be loaded; a loader that is not strict leaves the model's random
        start in their place.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). None in the statement
        itself.

    What to do
        Fetch the missing part again; look for files that were renamed.

    References
        Transformers: sharded checkpoints (``*.index.json``); torch.save (``data/N`` records).
    """
    yield from report(faults(evidence), KINDS, lambda fault: inspect(evidence, "--list"))
