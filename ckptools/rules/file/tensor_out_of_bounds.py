"""FIL106: a tensor reaches beyond its bytes."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import inspect
from ckptools.rules.file.faults import covers, faults, report
from ckptools.rules.registry import rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding

KINDS = covers(__name__, "record-outside", "storage-size-mismatch", "tensor-out-of-bounds")


@rule("FIL106", "tensor-out-of-bounds", severity="error", confidence="proof", needs=("checkpoint",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """A tensor reaches outside of its storage, or a storage outside of the file.

    What it means
        A shape, stride, offset or size does not fit into the bytes it points at.

    Why it matters
        A reader that trusts it reads foreign memory or allocates terabytes. No library writes
        such a view: the header was damaged or forged.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). None: the statement is
        arithmetic on the header's own numbers.

    What to do
        Do not load the file; get it again from its source.

    References
        CVE-2026-24747 (a tensor longer than its storage in PyTorch).
    """
    yield from report(faults(evidence), KINDS, lambda fault: inspect(evidence, "--list"))
