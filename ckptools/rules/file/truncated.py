"""FIL101: the file ends before its content does."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import command, path_of
from ckptools.rules.file.faults import covers, faults, report
from ckptools.rules.registry import rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding

KINDS = covers(__name__, "directory-damaged", "truncated")


@rule("FIL101", "truncated-file", severity="error", confidence="proof", needs=("checkpoint",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The file is cut off: its directory, or part of a tensor's bytes, is missing.

    What it means
        The format says that more bytes follow than the file has, or the directory at its end is
        not to be found. What lies whole before the cut was read and measured; the rest stands
        in "not judged".

    Why it matters
        Training libraries refuse such a file altogether, or fill what is missing with whatever
        the memory held. It is what a full disk, a killed job or a broken copy leaves behind.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). None: the statement is
        about lengths.

    What to do
        Copy the file again from where it came; else save what is whole.

    References
        PKWARE APPNOTE 6.3.10, section 4.3.16 (end of central directory); safetensors format.
    """
    path = path_of(evidence)
    yield from report(faults(evidence), KINDS, lambda fault: command("repair", path))
