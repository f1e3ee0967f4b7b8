"""A bound on how often the tensors of one file may show the same bytes.

A few megabytes can be viewed by thousands of overlapping tensors, so that reading all of them
would take hours.  Checkpoints tie a handful; what goes far beyond that is listed without values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ckptools.formats.fault_list import FaultList
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import Instance
from ckptools.types.wording import say

#: bytes that tensors may show in any case
AT_LEAST = 1 << 30
#: how often they may show the bytes that are there
TIMES = 4
REASON = say("the tensors of this file show its bytes more often than a checkpoint does")

View = tuple[object, ...]


class ViewBudget:
    """Adds up the bytes of distinct views; those beyond the limit are refused, in order.

    Two tensors that are the same view of the same storage cost once.
    """

    def __init__(self, refs: Iterable[TensorRef]) -> None:
        views: dict[View, int] = {}
        there: dict[object, int] = {}
        for ref in refs:
            if ref.storage is None or ref.unreadable is not None:
                continue
            views[_view(ref)] = ref.nbytes
            there[id(ref.storage.source)] = ref.storage.source.size
            if ref.storage.deflated is not None:
                there[id(ref.storage.source), ref.storage.start] = ref.storage.nbytes
        self.refused = _beyond(views, max(AT_LEAST, TIMES * sum(there.values())))

    def report(self, faults: FaultList) -> None:
        """Add a fault when views were refused."""
        if self.refused:
            message = say(
                "{number:,} views are not read: {reason}", number=len(self.refused), reason=REASON
            )
            faults.add("overlapping-views", "file", message, views=len(self.refused))

    def limited(self, ref: TensorRef) -> TensorRef:
        """Return the tensor, without values when its view was refused."""
        if ref.storage is None or _view(ref) not in self.refused:
            return ref
        return replace(ref, storage=None, unreadable=REASON)


def limit_views(instances: Iterable[Instance], faults: FaultList) -> None:
    """Take the values from recognised tensors beyond the limit, and report how many."""
    tensors = [one for one in instances if isinstance(one.value, TensorRef)]
    budget = ViewBudget(one.value for one in tensors)
    if budget.refused:
        for one in tensors:
            one.value = budget.limited(one.value)
        budget.report(faults)


def _beyond(views: dict[View, int], limit: int) -> set[View]:
    """Return the views that begin past the limit when all are read one after the other."""
    refused: set[View] = set()
    spent = 0
    for view, cost in views.items():
        spent += cost
        if spent > limit:
            refused.add(view)
    return refused


def _view(ref: TensorRef) -> View:
    assert ref.storage is not None
    storage = ref.storage
    return (id(storage.source), storage.start, ref.dtype, ref.offset, ref.shape, ref.strides)
