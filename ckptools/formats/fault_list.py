"""Collecting faults while a file is read, without letting a hostile file make millions of them."""

from __future__ import annotations

from typing import Any

from ckptools.types.container import Fault
from ckptools.types.wording import say

#: faults of one kind that are kept one by one; the rest is counted
KEPT = 100


class FaultList:
    """Faults in the order found; of each kind the first hundred, then how many more there were."""

    def __init__(self) -> None:
        self._kept: list[Fault] = []
        self._counts: dict[str, int] = {}
        self._scopes: dict[str, str] = {}

    def add(
        self, kind: str, where: str, message: str, *, scope: str = "container", **evidence: Any
    ) -> None:
        """Add one fault; see :class:`Fault` for the parts."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._counts[kind] <= KEPT:
            self._kept.append(Fault(kind, where, message, scope, evidence))
        self._scopes[kind] = scope

    def extend(self, faults: tuple[Fault, ...], *, prefix: str = "") -> None:
        """Add the faults of a part, their places prefixed with ``prefix``."""
        for fault in faults:
            self.add(
                fault.kind,
                f"{prefix}{fault.where}",
                fault.message,
                scope=fault.scope,
                **fault.evidence,
            )

    def faults(self) -> tuple[Fault, ...]:
        """Return everything added, with one more fault for each kind that was cut short."""
        rest = [
            Fault(
                kind,
                "more of the same",
                say("{count} more faults of this kind", count=count - KEPT),
                self._scopes[kind],
                {"count": count},
            )
            for kind, count in self._counts.items()
            if count > KEPT
        ]
        return (*self._kept, *rest)
