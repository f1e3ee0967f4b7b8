"""FIL103: the bytes of a record do not have the checksum that the container states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckptools.rules.advice import command, history, path_of
from ckptools.rules.file.faults import covers, faults, report
from ckptools.rules.registry import rule
from ckptools.rules.weights import listed
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container, Fault, Record
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.tensor import TensorRef
from ckptools.types.wording import say

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
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). None for files written
        by torch. A program that edits records in place without writing the checksum anew produces
        it, too.

    What to do
        A single flipped bit can be turned back; else take the record from another copy.

    References
        PKWARE APPNOTE 6.3.10, section 4.4.7; Peterson & Brown 1961 (cyclic codes).
    """
    for finding in report(faults(evidence), KINDS, lambda fault: _advice(evidence, fault)):
        names = _tensors_at(evidence, finding.target)
        if not names:
            yield finding
        else:
            yield replace(
                finding,
                message=say(
                    "{message}; it holds {names}", message=finding.message, names=listed(names)
                ),
                evidence={**finding.evidence, "tensors": names[:100]},
            )


def _advice(evidence: Evidence, fault: Fault) -> str:
    """Return the repair where the flipped bit is known, else the command that looks around."""
    if "bit" in fault.evidence:
        return command("repair", path_of(evidence))
    return history(evidence)


def _tensors_at(evidence: Evidence, place: str) -> list[str]:
    """Return the names of the weights and optimizer slots whose bytes lie in a record.

    ``place`` is the record's name, behind the path of its part where the checkpoint is a folder.
    """
    checkpoint = evidence.checkpoint
    assert checkpoint is not None
    storages = [record.storage for record in _records(checkpoint.container, place)]
    places = {(id(storage.source), storage.start) for storage in storages}
    return [
        name
        for name, ref in _references(checkpoint)
        if ref.storage is not None and (id(ref.storage.source), ref.storage.start) in places
    ]


def _records(container: Container, place: str) -> Iterator[Record]:
    """Iterate over the records at ``place`` of a container or its parts."""
    yield from (record for record in container.records if record.name == place)
    for path, part in container.parts.items():
        if place.startswith(f"{path}: "):
            yield from _records(part, place.removeprefix(f"{path}: "))


def _references(checkpoint: Checkpoint) -> Iterator[tuple[str, TensorRef]]:
    """Iterate over everything in the file that has values, with what to call it."""
    yield from ((tensor.name, tensor.ref) for tensor in checkpoint.tensors())
    for optimizer in checkpoint.optimizers:
        for state in optimizer.states:
            owner = state.name or f"{optimizer.key}.state[{state.id}]"
            yield from ((f"{slot} of {owner}", ref) for slot, ref in state.slots.items())
    yield from checkpoint.other_tensors.items()
