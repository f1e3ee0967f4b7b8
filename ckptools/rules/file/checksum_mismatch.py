"""FIL103: the bytes of a record do not have the checksum that the container states."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import command, path_of
from ckptools.rules.file.faults import covers, faults, report
from ckptools.rules.registry import rule
from ckptools.types.container import Fault
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding

KINDS = covers(__name__, "crc-mismatch")


@rule(
    "FIL103",
    "checksum-mismatch",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "checksums"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """The bytes of a record changed after they were written.

    What it means
        The CRC-32 of the record differs from the one that was written with it. Where a single
        flipped bit explains the difference, byte and bit are given: CRC-32 is linear, and no two
        single flips in a record below 512 MiB have the same effect on it.

    Why it matters
        ``torch.load`` never looks at these checksums: it loads the damaged values in silence.

    False alarms
        None for files written by torch. A program that edits records in place without writing
        the checksum anew produces it, too.

    What to do
        A single flipped bit can be turned back; else take the record from another copy.

    References
        PKWARE APPNOTE 6.3.10, section 4.4.7; Peterson & Brown 1961 (cyclic codes).
    """
    yield from report(faults(evidence), KINDS, lambda fault: _advice(evidence, fault))


def _advice(evidence: Evidence, fault: Fault) -> str:
    """Return the repair where the flipped bit is known, else the command that looks around."""
    path = path_of(evidence)
    if "bit" in fault.evidence:
        return command("repair", path)
    return command("diagnose", path)
