"""The page as GitHub's Markdown, for an issue or a pull request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tabulate import tabulate

from ckptools.report.escape import escape
from ckptools.report.numbers import NUMERIC, cell, plain_text
from ckptools.report.registry import media
from ckptools.report.text import IN_FULL, by_rule
from ckptools.report.wording import rule_name, translate, word
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
from ckptools.types.wording import say

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~@&])")
#: further findings of one rule that are named
_NAMED = 20
_TICKS = re.compile(r"`+")


@media.register("markdown")
def render(result: Result, *, color: bool = False, width: int = 100, lang: str = "en") -> str:
    """Return the page; names from the file stand in code spans and cannot become markup."""
    parts = ["\n".join(_WRITERS[type(block)](block, lang)) for block in result.view()]
    return "\n\n".join(part for part in parts if part) + "\n"


def prose(text: str) -> str:
    """Return ``text`` with every character that Markdown or HTML would act on escaped."""
    return _SPECIAL.sub(r"\\\1", escape(text))


def code(text: str) -> str:
    """Return ``text`` as a code span, whatever backticks it holds."""
    text = escape(text)
    fence = "`" * (max(map(len, _TICKS.findall(text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def _heading(block: Heading, lang: str) -> Iterator[str]:
    yield f"{'#' * block.level} {prose(block.text)}"


def _paragraph(block: Paragraph, lang: str) -> Iterator[str]:
    yield "  \n".join(prose(line.strip(" ")) for line in block.text.split("\n"))


def _facts(block: Facts, lang: str) -> Iterator[str]:
    for label, value in block.pairs:
        yield f"- {prose(label)}: {prose(cell(value, block.styles.get(label, 'text')))}"


def _table(block: Table, lang: str) -> Iterator[str]:
    if block.title:
        yield f"**{prose(block.title)}**\n"
    rows = [
        [_cell(row.get(column.key), column.style) for column in block.columns] for row in block.rows
    ]
    yield tabulate(
        rows,
        headers=[prose(column.title) for column in block.columns],
        tablefmt="github",
        disable_numparse=True,
        colalign=["right" if column.style in NUMERIC else "left" for column in block.columns]
        if rows
        else None,
    )
    if block.hidden:
        more = say("… {number:,} more", number=block.hidden)
        yield f"\n{translate(more, lang)}"


def _cell(value: Any, style: str) -> str:
    """Return one cell; a bar inside a code span is the one thing a table cannot hold."""
    text = cell(value, style)
    return code(text).replace("|", "\\|") if style == "name" else prose(text)


def _findings(block: FindingList, lang: str) -> Iterator[str]:
    for group in by_rule(block.findings):
        for finding in group[:IN_FULL]:
            yield from _finding(finding, lang)
        if rest := group[IN_FULL:]:
            named = ", ".join(code(one.target) for one in rest[:_NAMED])
            others = say(" and {number:,} others", number=max(len(rest) - _NAMED, 0))
            line = say(
                "{number:,} more of {code}: {names}{more}",
                number=len(rest),
                code=rest[0].code,
                names=named,
                more=others if len(rest) > _NAMED else "",
            )
            yield f"- {translate(line, lang)}"


def _finding(finding: Finding, lang: str) -> Iterator[str]:
    name = prose(rule_name(finding.name, lang))
    yield (
        f"- **{word(finding.severity, lang)}** {finding.code} {name} "
        f"({word(finding.confidence, lang)}), {code(finding.target)}: {prose(finding.message)}"
    )
    evidence = [f"{prose(key)} {prose(plain_text(item))}" for key, item in finding.evidence.items()]
    if finding.limit is not None:
        limit = say("limit {limit}", limit=plain_text(finding.limit))
        evidence.append(prose(translate(limit, lang)))
    if evidence:
        yield f"  - {', '.join(evidence)}"
    if finding.advice:
        yield f"  - {word('next', lang)}: {code(finding.advice)}"


def _chart(block: Chart, lang: str) -> Iterator[str]:
    yield prose(f"{block.title}: {block.caption}" if block.caption else block.title)


_WRITERS: dict[type[Block], Callable[[Any, str], Iterator[str]]] = {
    Heading: _heading,
    Paragraph: _paragraph,
    Facts: _facts,
    Table: _table,
    FindingList: _findings,
    Chart: _chart,
}
