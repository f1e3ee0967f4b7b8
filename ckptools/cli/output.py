"""Where a result goes: rendered, to stdout or into a file that is no checkpoint."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import click

from ckptools.cli import streams
from ckptools.errors import WouldOverwrite
from ckptools.types.blocks import Result
from ckptools.types.wording import say

#: columns of a page that does not go to a terminal
PAGE_WIDTH = 100
_WIDTHS = (60, 160)


@dataclass(frozen=True, slots=True)
class Output:
    """What the shared output options say.

    Attributes
    ----------
    medium: a registered medium.
    path: the file for the report, or None for stdout.
    quiet: no talk and no progress; a page shows findings only.
    color: False switches colours off.
    findings: rows and pages hold findings only.
    lang: the language of the report; None takes that of the environment for pages, and English
        for data.
    """

    medium: str = "table"
    path: Path | None = None
    quiet: bool = False
    color: bool = True
    findings: bool = False
    lang: str | None = None

    def emit(self, result: Result) -> int:
        """Render ``result`` to where it belongs and return its exit code."""
        from ckptools.report import pieces
        from ckptools.report.findings_only import FindingsOnly

        if self.findings or (self.quiet and self.medium == "table"):
            result = FindingsOnly(result)
        on_terminal = self.path is None and sys.stdout.isatty()
        text = pieces(
            result,
            self.medium,
            color=on_terminal and self.color and "NO_COLOR" not in os.environ,
            width=_terminal_width() if on_terminal else PAGE_WIDTH,
            lang=self.spoken(),
        )
        if self.path is None:
            streams.write(text)
        else:
            write_report(text, self.path)
        return result.exit_code

    def spoken(self) -> str:
        """Return the language in which the report is written."""
        from ckptools.report.wording import ENGLISH, PAGES, preferred

        if self.lang is not None or self.medium not in PAGES:
            return self.lang or ENGLISH
        return preferred(os.environ)

    def say(self, message: str) -> None:
        """Tell the user something that is not data, unless they want none of it."""
        from ckptools.report.escape import escape
        from ckptools.report.wording import preferred, translate

        if not self.quiet:
            lang = self.lang or preferred(os.environ)
            click.echo(escape(translate(message, lang)), err=True)

    def keep(self, text: str, path: Path) -> None:
        """Write a text of its own beside the report, in the language of pages, to a new file.

        WouldOverwrite where something stands there already: it may be somebody's own writing.
        """
        from ckptools.report.escape import escape
        from ckptools.report.wording import preferred, translate

        if path.exists():
            raise WouldOverwrite(
                "the file is there already", where=str(path), next="give a new name"
            )
        lines = translate(text, self.lang or preferred(os.environ)).split("\n")
        write_report("\n".join(map(escape, lines)), path)
        self.say(say("wrote {path}", path=str(path)))

    def progress(self, label: str) -> AbstractContextManager[Callable[[int, int], None] | None]:
        """Return a progress bar for a terminal, or nothing."""
        if self.quiet or not sys.stderr.isatty():
            return nullcontext(None)
        from ckptools.cli.progress import Progress

        return Progress(label)


def _terminal_width() -> int:
    """Return the terminal's columns, within what a table can use."""
    columns = shutil.get_terminal_size((PAGE_WIDTH, 24)).columns
    return min(max(columns, _WIDTHS[0]), _WIDTHS[1])


def write_report(text: str | Iterable[str], path: Path) -> None:
    """Write a report, whole or not at all; an earlier report may be replaced, nothing else.

    ``text`` may come in pieces.

    WouldOverwrite when something that is not text stands at ``path``: with the wrong order of
    arguments it is the checkpoint.
    """
    from ckptools.surgery.atomic import Target, new_file

    if path.exists() and not _is_text(path):
        raise WouldOverwrite(
            "a report would overwrite something that is no report",
            where=str(path),
            next="give -o a new name",
        )
    with new_file(Target(path, force=True), verify=_nothing) as file:
        for piece in (text,) if isinstance(text, str) else text:
            file.write(piece.encode("utf-8", "backslashreplace"))


def _nothing(path: Path) -> None:
    """Accept a file as it is: a report is not read back."""


def _is_text(path: Path) -> bool:
    """Return whether ``path`` is a regular file whose beginning is UTF-8 without NUL."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(65536)
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
