"""A result made by hand, as nasty as a file can make one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ckptools.types.blocks import (
    Block,
    Chart,
    Column,
    Facts,
    FindingList,
    Heading,
    Paragraph,
    Table,
)
from ckptools.types.finding import Finding

#: an escape sequence, a direction mark, half a surrogate pair, markup of three media
NASTY = 'a\x1b[31mred\u202egnp.exe\ud800|`code`<b>&\n# heading,"x"\x00'


def finding(code: str = "NUM101", severity: str = "error", target: str = "head.weight") -> Finding:
    return Finding(
        code,
        "nonfinite-weight",
        severity,
        "proof",
        target,
        "1 of 16,384 values is NaN",
        {"nan": 1, "share": float("nan")},
        0.5,
        "ckptools repair a.pth",
    )


@dataclass
class HandMade:
    """A result whose every part is given."""

    blocks: list[Block] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()
    lines: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0

    def document(self) -> dict[str, Any]:
        shared = {"schema": "ckptools.test/1", "path": "a.pth", "crashed": [], "skipped": []}
        return shared | {"findings": [one.document() for one in self.findings]} | self.more

    def rows(self) -> list[dict[str, Any]]:
        return self.lines

    def view(self) -> list[Block]:
        return self.blocks


def nasty_result() -> HandMade:
    """A result in which every text is hostile."""
    columns = (Column("name", NASTY, "name"), Column("n", "count", "integer"), Column("t", "text"))
    found = (finding(target=NASTY), finding("SPR201", "note", target="层异常"))
    return HandMade(
        blocks=[
            Heading(NASTY, 1),
            FindingList(found),
            Heading("File"),
            Facts(((NASTY, NASTY), ("size", 2_163_487)), {"size": "bytes"}),
            Table(columns, ({"name": NASTY, "n": 3, "t": NASTY},), title=NASTY, hidden=7),
            Paragraph(NASTY, "bad"),
            Chart(NASTY, (), caption=NASTY),
        ],
        findings=found,
        lines=[{"name": NASTY, "value": float("-inf"), "shape": [2, 3]}, {"other": None}],
        more={
            "path": NASTY,
            "value": float("nan"),
            "skipped": [{"code": "CHG101", "name": "x", "reason": NASTY}],
            "crashed": [{"code": "CHG102", "name": "y", "error": NASTY}],
        },
        exit_code=1,
    )
