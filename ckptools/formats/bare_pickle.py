"""A pickle by itself, as ``pickle.dump`` writes it: listed inertly, with the names it holds.

Tensors in it carry their storages inside the pickle, arrays their values.  People load such files,
and whoever hides something in one counts on that.  What follows the first pickle is read for its
names, too.
"""

from __future__ import annotations

from ckptools.errors import CorruptFile
from ckptools.formats import dcp_metadata
from ckptools.formats.fault_list import FaultList
from ckptools.formats.nested_storages import nested_storages
from ckptools.formats.pickle_machine import (
    BrokenPickle,
    IncompletePickle,
    Limits,
    PickleResult,
    run,
)
from ckptools.formats.pickle_state import HIGHEST_PROTOCOL
from ckptools.formats.pickle_stream import read_pickle
from ckptools.formats.registry import formats
from ckptools.formats.tensors import recognise
from ckptools.formats.torch_legacy import is_magic
from ckptools.formats.uses import merged
from ckptools.formats.zip_directory import LOCAL
from ckptools.types.container import Container, GlobalUse
from ckptools.types.source import Source
from ckptools.types.wording import say

#: what is looked at before the file is believed to be a pickle
HEAD = 64 << 10
_SNIFFING = Limits(opcodes=100_000, memory=16 << 20)
#: pickles of one file that are read for their names
MAX_PICKLES = 1000
#: opcodes with which protocols 0 and 1 begin anything worth saving: MARK, GLOBAL, empty dict, list
_OPENING = b"(c}]"


class BarePickle:
    """The reader of plain pickles."""

    order = 90

    def sniff(self, source: Source) -> int:
        """Return 2 for a whole pickle, 1 for what seems to be the beginning of one."""
        head = source.read_at(0, min(source.size, HEAD))
        if not head or head.startswith(LOCAL):
            return 0
        try:
            result = run(head, limits=_SNIFFING)
        except BrokenPickle as error:
            return _begins_like_pickle(head, error)
        return _is_worth_listing(result)

    def open(self, path: str, source: Source) -> Container:
        """Return the tree of the first pickle and the names of all.

        Raises
        ------
        CorruptFile: the first pickle cannot be read; the message says what it names until there.
        """
        faults = FaultList()
        try:
            first = read_pickle(source, 0)
        except BrokenPickle as error:
            raise type(error)(error.message, where=path) from None
        nested = nested_storages(first)
        uses = [*nested.vouched(first.globals), *nested.globals]
        if first.end_offset < source.size:
            uses.extend(_following(source, first.end_offset, faults))
        faults.extend(first.faults)
        faults.extend(recognise(first, nested.storages, nested=nested.references).faults)
        if dcp_metadata.is_dcp_metadata(first):
            dcp_metadata.check(first, path, faults)
        return Container(
            path=path,
            format="bare-pickle",
            size_bytes=source.size,
            root=first.root,
            source=source,
            globals=merged(uses),
            faults=faults.faults(),
            metadata={"pickle_protocol": first.protocol},
            not_judged=_not_judged(first),
        )


formats.add("bare-pickle", BarePickle())


def _not_judged(first: PickleResult) -> tuple[str, ...]:
    if dcp_metadata.is_dcp_metadata(first):
        return (
            say("the tensors of this distributed checkpoint, a format that is not supported yet"),
        )
    return ()


def _is_worth_listing(result: PickleResult) -> int:
    """Return 2 for a pickle of something; a lone scalar without header may be any text file."""
    if is_magic(result):
        return 0
    scalar = result.root is None or type(result.root) in (bool, int, float, str, bytes)
    return 0 if scalar and result.protocol == 0 and not result.globals else 2


def _begins_like_pickle(head: bytes, error: BrokenPickle) -> int:
    """Return 1 when so much of a broken pickle was read that it was meant to be one."""
    announced = head[0] == 0x80 and len(head) > 1 and head[1] <= HIGHEST_PROTOCOL
    if any(announced or _is_dotted(use.name) for use in error.globals):
        return 1
    if isinstance(error, IncompletePickle):
        return int(announced or (len(head) == HEAD and head[0] in _OPENING))
    return int(announced and error.position > 16)


def _is_dotted(name: str) -> bool:
    """Return whether a global could be one, which two lines of a text file are not."""
    return all(step.isidentifier() for step in name.split("."))


def _following(source: Source, position: int, faults: FaultList) -> list[GlobalUse]:
    """Return the names of all pickles behind the first one."""
    uses: list[GlobalUse] = []
    faults.add(
        "trailing-bytes",
        "end of file",
        say("{size:,} bytes lie behind the first pickle", size=source.size - position),
        bytes=source.size - position,
    )
    for _ in range(MAX_PICKLES):
        if position >= source.size:
            break
        try:
            result = read_pickle(source, position)
        except BrokenPickle as error:
            uses.extend(error.globals)
            break
        except CorruptFile:
            break
        uses.extend(result.globals)
        position = result.end_offset
    return uses
