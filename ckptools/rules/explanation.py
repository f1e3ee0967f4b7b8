"""The explanation of a rule: its docstring, under five headings that every rule fills."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass

#: The headings, in the order in which a docstring must have them.
HEADINGS = (
    "What it means",
    "Why it matters",
    "False alarms",
    "What to do",
    "References",
)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A docstring taken apart: its first sentence, and the text under each heading."""

    summary: str
    sections: dict[str, str]


def require_headings(docstring: str | None) -> None:
    """Raise ValueError unless ``docstring`` has all headings in their order; quicker than to parse.

    Every rule is imported at every start, and few are ever explained.
    """
    lines = map(str.strip, (docstring or "").splitlines())
    if tuple(line for line in lines if line in HEADINGS) != HEADINGS:
        raise ValueError(f"the docstring needs the headings {', '.join(HEADINGS)}, in this order")


def parse(docstring: str | None) -> Explanation:
    """Return the explanation that ``docstring`` holds.

    A heading is a line of its own; what follows is indented.
    ValueError names what is missing, empty or out of order.
    """
    require_headings(docstring)
    lines = inspect.cleandoc(docstring or "").splitlines()
    starts = [(number, line) for number, line in enumerate(lines) if line.strip() in HEADINGS]
    ends = [number for number, _ in starts[1:]] + [len(lines)]
    sections = {
        heading.strip(): textwrap.dedent("\n".join(lines[start + 1 : end])).strip()
        for (start, heading), end in zip(starts, ends, strict=True)
    }
    summary = "\n".join(lines[: starts[0][0]]).strip()
    empty = [heading for heading, text in sections.items() if not text]
    if empty or not summary:
        raise ValueError(f"the docstring says nothing under {', '.join(empty) or 'its first line'}")
    return Explanation(summary, sections)
