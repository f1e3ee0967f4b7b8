"""KEY106: one key, two values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ckptools.rules.advice import inspect
from ckptools.rules.file.faults import covers, faults, report
from ckptools.rules.registry import rule
from ckptools.types.container import Fault
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.tree import pairs_of, walk
from ckptools.types.wording import say

KINDS = covers(__name__, "duplicate-key")


@rule("KEY106", "duplicate-key", severity="error", confidence="proof", needs=("checkpoint",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The file gives one key twice.

    What it means
        A state dict, header or index holds two values under the same key.

    Why it matters
        A dictionary keeps the last one, other readers the first, and the other is lost without
        a word. A program that saves a dictionary cannot produce this: the file was edited,
        damaged or forged.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). None in the statement
        itself.

    What to do
        Get the file again from its source; compare both values with an earlier checkpoint.

    References
        RFC 8259, section 4 (names within an object should be unique); Python: pickle SETITEMS.
    """
    assert evidence.checkpoint is not None
    container = evidence.checkpoint.container
    pickled = [
        Fault("duplicate-key", key, say("the pickle gives this key {times} times", times=times))
        for key, times in repeated_keys(container.root)
    ]
    every = faults(evidence)
    known = {fault.where for fault in every if fault.kind in KINDS}
    every += [fault for fault in pickled if fault.where not in known]
    yield from report(every, KINDS, lambda fault: inspect(evidence, "--list"))


def repeated_keys(root: Any) -> Iterator[tuple[str, int]]:
    """Iterate over (key, times) for every text key that a mapping in the tree has repeatedly."""
    for node in walk(root):
        keys = [key for key, _ in pairs_of(node) if isinstance(key, str)]
        if len(set(keys)) < len(keys):
            yield from ((key, times) for key, times in Counter(keys).items() if times > 1)
