"""What the file rules share: which rule speaks of which kind of fault, and how many it names.

Readers say what is wrong with a file as :class:`~ckptools.types.container.Fault`, by kind.  Each
kind belongs to one rule, which claims it with :func:`covers`; :data:`KINDS` is the account, from
which the last rule of the family knows the kinds that nobody claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ckptools.rules.registry import found
from ckptools.rules.weights import FEW
from ckptools.types.container import Fault
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

#: every kind of fault that a rule claimed -> the module of that rule
KINDS: dict[str, str] = {}


def covers(module: str, *kinds: str) -> frozenset[str]:
    """Claim ``kinds`` for the rule in ``module``; ValueError when another rule has one of them."""
    for kind in kinds:
        if KINDS.setdefault(kind, module) != module:
            raise ValueError(f"faults of the kind {kind!r} belong to {KINDS[kind]}")
    return frozenset(kinds)


def faults(evidence: Evidence) -> list[Fault]:
    """Return every fault of the container and of the checksum pass.

    What the pass says of a record replaces what the reader said of the same kind, with less to go
    by.
    """
    assert evidence.checkpoint is not None
    verified = evidence.checksums or ()
    known = {(fault.kind, fault.where) for fault in verified}
    read = evidence.checkpoint.container.faults
    return [*(fault for fault in read if (fault.kind, fault.where) not in known), *verified]


def report(
    every: Iterable[Fault], kinds: frozenset[str], advice: Callable[[Fault], str]
) -> Iterator[Finding]:
    """Yield a finding for each fault of these kinds, or one for each kind when they are many."""
    by_kind: dict[str, list[Fault]] = {}
    for fault in every:
        if fault.kind in kinds:
            by_kind.setdefault(fault.kind, []).append(fault)
    for kind, same in by_kind.items():
        if len(same) <= FEW:
            yield from (_single(fault, advice(fault)) for fault in same)
        else:
            yield _several(kind, same, advice(same[0]))


def _single(fault: Fault, advice: str) -> Finding:
    return found(
        fault.where,
        fault.message,
        evidence={"kind": fault.kind, "scope": fault.scope, **fault.evidence},
        advice=advice,
    )


def _several(kind: str, same: list[Fault], advice: str) -> Finding:
    number = sum(int(fault.evidence.get("count", 1)) for fault in same)
    return found(
        same[0].where,
        say(
            "{message}; and {number:,} more faults of the kind {kind}",
            message=same[0].message,
            number=number - 1,
            kind=kind,
        ),
        evidence={"kind": kind, "count": number, "where": [fault.where for fault in same][:100]},
        advice=advice,
    )
