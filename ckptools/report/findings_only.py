"""Any result reduced to its findings: a row per finding, a page of nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ckptools.types.blocks import Block, FindingList, Result
from ckptools.types.finding import Finding


@dataclass(frozen=True, slots=True)
class FindingsOnly:
    """A view on ``result`` for ``--findings`` and ``-q``; its document stays whole."""

    result: Result

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of the result."""
        return self.result.findings

    @property
    def exit_code(self) -> int:
        """The exit code of the result."""
        return self.result.exit_code

    def document(self) -> dict[str, Any]:
        """Return the document of the result."""
        return self.result.document()

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per finding."""
        return [finding.document() for finding in self.findings]

    def view(self) -> list[Block]:
        """Return the findings; an empty page when there are none."""
        return [FindingList(self.findings)] if self.findings else []
