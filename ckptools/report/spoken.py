"""Any result in another language: its blocks, rows and document with their sentences translated.

Names, codes, keys and paths stay what they are: only what was written as a sentence
(:class:`~ckptools.types.wording.Wording`) is said differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ckptools.report.wording import translate, word
from ckptools.types.blocks import (
    Block,
    Chart,
    Facts,
    FindingList,
    Heading,
    Paragraph,
    Result,
    Table,
)
from ckptools.types.finding import Finding

#: fields of a document that identify something: scripts and baselines compare them
_IDENTITIES = frozenset({"code", "name", "severity", "confidence", "target"})


@dataclass(frozen=True, slots=True)
class Spoken:
    """A view on ``result`` in the language ``lang``."""

    result: Result
    lang: str

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings with their sentences in the language."""
        return tuple(self._finding(one) for one in self.result.findings)

    @property
    def exit_code(self) -> int:
        """The exit code of the result."""
        return self.result.exit_code

    def document(self) -> dict[str, Any]:
        """Return the document; what identifies something stays as it is."""
        document: dict[str, Any] = self._data(self.result.document())
        return document

    def rows(self) -> Sequence[dict[str, Any]]:
        """Return the rows; what identifies something stays as it is."""
        rows = self.result.rows()
        if isinstance(rows, list):
            rows = self._data(rows)
        return rows

    def view(self) -> list[Block]:
        """Return the page."""
        return [self._block(block) for block in self.result.view()]

    def _data(self, value: Any) -> Any:
        if isinstance(value, str):
            return translate(value, self.lang)
        if isinstance(value, dict):
            return {
                key: item if key in _IDENTITIES else self._data(item) for key, item in value.items()
            }
        return [self._data(one) for one in value] if isinstance(value, (list, tuple)) else value

    def _block(self, block: Block) -> Block:
        tell = self._say
        match block:
            case Heading() | Paragraph():
                return replace(block, text=tell(block.text))
            case Facts():
                labels = {label: tell(label) for label, _ in block.pairs}
                styles = {labels[one]: block.styles[one] for one in labels if one in block.styles}
                pairs = tuple((labels[label], self._cell(value)) for label, value in block.pairs)
                return Facts(pairs, styles)
            case Table():
                return replace(
                    block,
                    columns=tuple(replace(one, title=tell(one.title)) for one in block.columns),
                    rows=tuple(self._row(row) for row in block.rows),
                    title=block.title and tell(block.title),
                )
            case FindingList():
                return FindingList(tuple(map(self._finding, block.findings)))
            case Chart():
                return replace(block, title=tell(block.title), caption=tell(block.caption))

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        return {key: self._cell(value) for key, value in row.items()}

    def _cell(self, value: Any) -> Any:
        if isinstance(value, bool):
            return word("yes" if value else "no", self.lang)
        if isinstance(value, str):
            return self._say(value)
        return [self._cell(one) for one in value] if _has_text(value) else value

    def _finding(self, finding: Finding) -> Finding:
        return replace(
            finding,
            target=self._say(finding.target),
            message=self._say(finding.message),
            evidence={key: self._cell(value) for key, value in finding.evidence.items()},
            advice=finding.advice and self._say(finding.advice),
        )

    def _say(self, text: str) -> str:
        return translate(text, self.lang)


def _has_text(value: Any) -> bool:
    """Return whether a value is a list in which words stand."""
    return isinstance(value, (list, tuple)) and any(isinstance(one, str) for one in value)
