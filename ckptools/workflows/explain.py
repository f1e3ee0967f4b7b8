"""Explain a rule, or list all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ckptools import __version__
from ckptools.rules.explanation import HEADINGS
from ckptools.rules.registry import Rule, rules
from ckptools.rules.selection import require
from ckptools.types.blocks import Block, Column, Facts, Heading, Paragraph, Table
from ckptools.types.finding import Finding
from ckptools.types.wording import say, verbatim

#: What the letters of a family stand for.
FAMILIES = {
    "FIL": say("file"),
    "KEY": say("names and structure"),
    "NUM": say("numbers"),
    "SPR": say("spread and spectrum"),
    "OPT": say("optimizer"),
    "RUN": say("run state and resume"),
    "CHG": say("change between checkpoints"),
    "LOG": say("training log"),
    "EXP": say("experiment"),
}

_COLUMNS = (
    Column("code", say("code")),
    Column("name", say("name")),
    Column("severity", say("severity")),
    Column("confidence", say("confidence")),
    Column("summary", say("what it says")),
    Column("limit", say("limit"), "number"),  # the last goes first where there is no room
)


@dataclass(frozen=True)
class Explained:
    """The rules asked about: one in full, or several in a table."""

    rules: tuple[Rule, ...]
    in_full: bool

    @property
    def findings(self) -> tuple[Finding, ...]:
        """No findings: nothing was judged."""
        return ()

    @property
    def exit_code(self) -> int:
        """Always 0."""
        return 0

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.explain/1``: every rule with its docstring under the headings."""
        return {
            "schema": "ckptools.explain/1",
            "tool": {"version": __version__},
            "rules": [
                {**_row(rule), "needs": list(rule.needs), **_sections(rule)} for rule in self.rules
            ],
            "findings": [],
            "crashed": [],
            "skipped": [],
            "not_judged": [],
            "exit_code": self.exit_code,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per rule."""
        return [_row(rule) for rule in self.rules]

    def view(self) -> list[Block]:
        """Return the page: the docstring of one rule, or tables by family."""
        return _page(self.rules[0]) if self.in_full else _tables(self.rules)


def explain(code: str | None = None) -> Explained:
    """Return the explanation of the rule called ``code``, or the list of rules.

    Parameters
    ----------
    code: a rule's code or name; the start of a code (``NUM``) lists those; None lists all.

    Raises
    ------
    SettingsError: no rule is called so; the nearest names are given.
    """
    if code is None:
        return Explained(tuple(rules), in_full=False)
    named = require(code)
    return Explained(tuple(named), in_full=len(named) == 1)


def _row(rule: Rule) -> dict[str, Any]:
    """Return one flat row of a rule."""
    return {
        "code": rule.code,
        "name": verbatim(rule.name),
        "severity": verbatim(rule.severity),
        "confidence": verbatim(rule.confidence),
        "limit": rule.limit,
        "summary": verbatim(_flowing(rule.explanation.summary)),
    }


def _sections(rule: Rule) -> dict[str, str]:
    """Return the text under each heading, by the heading as a field name."""
    return {
        heading.lower().replace(" ", "_"): _flowing(text)
        for heading, text in rule.explanation.sections.items()
    }


def _page(rule: Rule) -> list[Block]:
    """Return the page of one rule."""
    family = FAMILIES.get(rule.family, rule.family)
    facts: list[tuple[str, Any]] = [
        (say("family"), say("{code} {name}", code=rule.family, name=family)),
        (say("severity"), say("at most {severity}", severity=verbatim(rule.severity))),
        (say("confidence"), say("at most {confidence}", confidence=verbatim(rule.confidence))),
    ]
    if rule.limit is not None:
        facts.append(
            (
                say("limit"),
                say(
                    "{limit:g}, set by limits.{code} in ckptools.toml",
                    limit=rule.limit,
                    code=rule.code,
                ),
            )
        )
    if rule.needs:
        facts.append((say("needs"), ", ".join(rule.needs)))
    blocks: list[Block] = [
        Heading(say("{code} {name}", code=rule.code, name=verbatim(rule.name)), level=1),
        Paragraph(verbatim(_flowing(rule.explanation.summary))),
        Facts(tuple(facts)),
    ]
    for heading in HEADINGS:
        text = _flowing(rule.explanation.sections[heading])
        blocks += [Heading(verbatim(heading)), *(Paragraph(part) for part in text.split("\n\n"))]
    return blocks


def _tables(listed: tuple[Rule, ...]) -> list[Block]:
    """Return a table for each family."""
    blocks: list[Block] = [Heading(say("rules"), level=1)]
    for family in dict.fromkeys(rule.family for rule in listed):
        members = tuple(_row(rule) for rule in listed if rule.family == family)
        title = say("{code} {name}", code=family, name=FAMILIES.get(family, ""))
        blocks.append(Table(_COLUMNS, members, title=title))
    return blocks


def _flowing(text: str) -> str:
    """Return paragraphs on one line each, for the medium to break anew; code in single quotes."""
    text = text.replace("``", "`")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
