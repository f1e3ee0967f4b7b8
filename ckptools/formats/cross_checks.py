"""What is asked of every container: is it only one, are its names plain, does it end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from ckptools.formats.fault_list import FaultList
from ckptools.types.container import Container
from ckptools.types.tree import pairs_of, walk
from ckptools.types.wording import say

#: control characters, characters that reorder or hide text, and halves of characters
ODD_CHARACTERS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
#: nodes of a tree that are looked at
MAX_NODES = 1_000_000
#: entries of one mapping or list that layouts look at; no model has as many tensors
LARGEST_MAPPING = 300_000


def cross_checked(container: Container, others: Sequence[str]) -> Container:
    """Return the container with a fault for every other format that claims the same bytes.

    Keys with characters that a terminal would obey rather than print are reported, too, and
    mappings that are too large to be looked at as a whole.
    """
    faults = FaultList()
    for name in others:
        faults.add(
            "polyglot",
            "file",
            say(
                "the file is read as {format}, other tools may read it as {name}",
                format=container.format,
                name=name,
            ),
            other=name,
        )
    for node in islice(walk(container.root), MAX_NODES):
        pairs = pairs_of(node)
        for key in _odd_keys(pairs):
            faults.add(
                "odd-key", ascii(key)[:120], say("a key with invisible characters"), scope="object"
            )
        if len(pairs) > LARGEST_MAPPING:
            message = say(
                "of {number:,} entries only {limit:,} are looked at",
                number=len(pairs),
                limit=LARGEST_MAPPING,
            )
            faults.add("oversized-mapping", "a mapping", message, scope="object")
    if not faults.faults():
        return container
    return replace(container, faults=(*container.faults, *faults.faults()))


def _odd_keys(pairs: list[tuple[Any, Any]]) -> Iterator[str]:
    """Yield the keys that hold odd characters."""
    for key, _ in pairs:
        if type(key) is str and not key.isprintable() and ODD_CHARACTERS.search(key):
            yield key
