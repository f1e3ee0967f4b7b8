"""The page for a terminal: ``--format table``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import click
from tabulate import tabulate

from ckptools.report.escape import escape
from ckptools.report.fit import display_width, narrow, shorten, wrap
from ckptools.report.numbers import NUMERIC, cell, plain_text
from ckptools.report.registry import media
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
from ckptools.types.finding import SEVERITIES, Finding
from ckptools.types.wording import join, say

#: findings of one rule that are printed in full; the others are counted and named
IN_FULL = 3
_INDENT = " " * 9
_COLOURS: dict[str, dict[str, Any]] = {
    "error": {"fg": "red", "bold": True},
    "warning": {"fg": "yellow", "bold": True},
    "note": {"fg": "cyan"},
    "bad": {"fg": "red"},
    "caution": {"fg": "yellow"},
    "good": {"fg": "green"},
    "heading": {"bold": True},
    "faint": {"dim": True},
}


@dataclass(frozen=True, slots=True)
class Page:
    """What a block needs to know about the page it lands on."""

    color: bool
    width: int
    lang: str

    def tell(self, text: str) -> str:
        """Return a sentence of the medium's own in the language of the page."""
        return translate(text, self.lang)

    def word(self, text: str) -> str:
        """Return a word that stands alone, e.g. a severity."""
        return word(text, self.lang)

    def paint(self, text: str, role: str) -> str:
        """Return ``text`` in the colour of its role, or as it is without colours."""
        return click.style(text, **_COLOURS[role]) if self.color and role in _COLOURS else text


@media.register("table")
def render(result: Result, *, color: bool = False, width: int = 100, lang: str = "en") -> str:
    """Return the page, a blank line between its blocks."""
    page = Page(color, width, lang)
    text = ""
    for block in result.view():
        part = "\n".join(_WRITERS[type(block)](block, page))
        heads = isinstance(block, Heading) and block.level > 1
        text += part + ("\n" if heads else "\n\n") if part else ""
    return text.rstrip("\n") + "\n" if text else ""


def _heading(block: Heading, page: Page) -> Iterator[str]:
    """Yield a title; the page's own stands alone, a lesser one is ruled to the page's width."""
    text = escape(block.text)
    if block.level == 1:
        yield page.paint("\n".join(wrap(text, page.width)), "heading")
    else:
        rule = "─" * max(page.width - display_width(text) - 4, 2)
        title = page.paint(text, "heading")
        yield f"{page.paint('──', 'faint')} {title} {page.paint(rule, 'faint')}"


def _paragraph(block: Paragraph, page: Page) -> Iterator[str]:
    """Yield running text; its own line ends are kept, items of a list hang."""
    for line in block.text.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        hang = indent + 2 * line.lstrip(" ").startswith("- ")
        for number, part in enumerate(wrap(escape(line.strip(" ")), page.width - hang)):
            yield page.paint(" " * (hang if number else indent) + part, block.tone)


def _facts(block: Facts, page: Page) -> Iterator[str]:
    """Yield label and value in two columns, long values continued under themselves."""
    labels = [escape(label) for label, _ in block.pairs]
    indent = max(map(display_width, labels), default=0) + 2
    for label, (key, value) in zip(labels, block.pairs, strict=True):
        text = cell(value, block.styles.get(key, "text"))
        lead = page.paint(label, "faint") + " " * (indent - display_width(label))
        for line in wrap(text, page.width - indent):
            yield lead + line
            lead = " " * indent


def _table(block: Table, page: Page) -> Iterator[str]:
    """Yield a table no wider than the page: names are shortened, prose wrapped, columns dropped."""
    if block.title:
        yield page.paint(escape(block.title), "heading")
    columns = [
        [escape(column.title), *(cell(row.get(column.key), column.style) for row in block.rows)]
        for column in block.columns
    ]
    modes = [{"name": "cut", "text": "wrap"}.get(column.style, "keep") for column in block.columns]
    fitted, dropped = narrow(columns, modes, page.width)
    aligned = ["right" if column.style in NUMERIC else "left" for column in block.columns]
    rules = [
        "─" * max(display_width(line) for cell in column for line in cell.split("\n"))
        for column in fitted
    ]
    heads = [column[0] for column in fitted]
    yield tabulate(
        [heads, rules, *zip(*(column[1:] for column in fitted), strict=True)],
        tablefmt="plain",
        disable_numparse=True,
        colalign=aligned[: len(fitted)],
    )
    if block.hidden:
        more = say("… {number:,} more", number=block.hidden)
        yield page.paint(page.tell(more), "faint")
    if dropped:
        names = join(escape(column.title) for column in block.columns[-dropped:])
        yield page.paint(page.tell(say("no room for: {names}", names=names)), "faint")


def _chart(block: Chart, page: Page) -> Iterator[str]:
    """Yield a chart's title and caption: a terminal draws no figures."""
    yield from wrap(
        escape(f"{block.title}: {block.caption}" if block.caption else block.title), page.width
    )


def by_rule(findings: tuple[Finding, ...]) -> Iterator[list[Finding]]:
    """Yield findings rule by rule, the most severe first."""
    ordered = sorted(findings, key=lambda one: (-SEVERITIES.index(one.severity), one.code))
    for _, group in groupby(ordered, key=lambda one: (one.severity, one.code)):
        yield list(group)


def _findings(block: FindingList, page: Page) -> Iterator[str]:
    """Yield findings rule by rule; of many alike the first in full, the others by name."""
    for number, group in enumerate(by_rule(block.findings)):
        if number:
            yield ""
        for finding in group[:IN_FULL]:
            yield from _finding(finding, page)
        if rest := group[IN_FULL:]:
            yield from _rest_of(rest, page)


def _finding(finding: Finding, page: Page) -> Iterator[str]:
    """Yield one finding: what and how sure, where, the message, what it rests on, what next."""
    severity = page.word(finding.severity)
    severity += " " * (len(_INDENT) - display_width(severity))
    lead = page.paint(severity, finding.severity)
    name = rule_name(finding.name, page.lang)
    identity = f"{finding.code} {name} ({page.word(finding.confidence)})"
    target = shorten(escape(finding.target), page.width - len(_INDENT))
    room = page.width - len(_INDENT) - display_width(identity) - 2
    if display_width(target) <= room:
        yield f"{lead}{page.paint(identity, 'heading')}  {target}"
    else:
        yield lead + page.paint(identity, "heading")
        yield _INDENT + target
    for line in wrap(escape(finding.message), page.width - len(_INDENT)):
        yield _INDENT + line
    if grounds := _grounds(finding, page):
        for line in wrap(grounds, page.width - len(_INDENT)):
            yield _INDENT + page.paint(line, "faint")
    if finding.advice:
        yield _INDENT + page.paint(page.word("next") + "  ", "faint") + escape(finding.advice)


def _grounds(finding: Finding, page: Page) -> str:
    """Return evidence and limit in one line."""
    parts = [f"{plain_text(key)} {plain_text(value)}" for key, value in finding.evidence.items()]
    if finding.limit is not None:
        parts.append(page.tell(say("limit {limit}", limit=plain_text(finding.limit))))
    return " · ".join(parts)


def _rest_of(findings: list[Finding], page: Page) -> Iterator[str]:
    """Yield the targets of further findings of one rule, as many as two lines take."""
    more = say("and {number:,} more of {code}: ", number=len(findings), code=findings[0].code)
    lines = wrap(
        page.tell(more) + ", ".join(escape(one.target) for one in findings),
        page.width - len(_INDENT),
    )
    for line in lines[:2]:
        yield _INDENT + line
    if len(lines) > 2:
        yield _INDENT + page.paint(
            page.tell(say("… all of them: --findings --format jsonl")), "faint"
        )


_WRITERS: dict[type[Block], Callable[[Any, Page], Iterator[str]]] = {
    Heading: _heading,
    Paragraph: _paragraph,
    Facts: _facts,
    Table: _table,
    FindingList: _findings,
    Chart: _chart,
}
