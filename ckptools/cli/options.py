"""Options that several commands share, as decorators; a command never formats its own output."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ckptools.cli.output import Output
from ckptools.types.blocks import Result

Command = Callable[..., Any]


class Medium(click.ParamType):  # type: ignore[type-arg]
    """The name of a registered medium; the registry is asked when a name is used, not before."""

    name = "format"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a known name; an unknown one is a usage error that lists them."""
        if value not in self._names():
            self.fail(f"{value!r} is none of {', '.join(self._names())}", param, ctx)
        return value

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the choices for the help text."""
        return f"[{'|'.join(self._names())}]"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the media that begin with what was typed."""
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]

    @staticmethod
    def _names() -> list[str]:
        from ckptools.report import media

        return media.names()


class Language(click.ParamType):  # type: ignore[type-arg]
    """A language that reports are written in; the catalogues are looked for when one is named."""

    name = "language"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a known language; an unknown one is a usage error that lists them."""
        if value not in self._known():
            self.fail(f"{value!r} is none of {', '.join(self._known())}", param, ctx)
        return value

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the choices for the help text."""
        return f"[{'|'.join(self._known())}]"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the languages that begin with what was typed."""
        return [CompletionItem(name) for name in self._known() if name.startswith(incomplete)]

    @staticmethod
    def _known() -> tuple[str, ...]:
        from ckptools.report.wording import LANGUAGES

        return LANGUAGES


class Words(click.ParamType):  # type: ignore[type-arg]
    """Words separated by commas."""

    name = "words"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the words of one use of the option."""
        return tuple(word.strip() for word in value.split(",") if word.strip())


def rule_codes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the families and rules that the last of the words typed may become."""
    from ckptools.rules import rules
    from ckptools.workflows.explain import FAMILIES

    *before, typed = incomplete.split(",")
    known = {**FAMILIES, **{rule.code: rule.name for rule in rules}}
    return [
        CompletionItem(",".join([*before, code]), help=name)
        for code, name in known.items()
        if code.startswith(typed.upper())
    ]


def stack(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return one decorator made of several options, shown in this order in the help."""

    def decorate(command: Command) -> Command:
        return functools.reduce(lambda inner, option: option(inner), reversed(options), command)

    return decorate


def output_options(command: Callable[..., Result]) -> Command:
    """Add --format, -o, -q, --no-color and --findings; show the result that ``command`` returns.

    ``command`` gets an :class:`Output` as ``output``, for talk and progress; what it returns is
    rendered, and its exit code returned.
    """
    return _TO_FILE(receipt_options(command))


def receipt_options(command: Callable[..., Result]) -> Command:
    """Add what :func:`output_options` adds, but for -o: there it names the new checkpoint."""

    @functools.wraps(command)
    def shown(
        medium: str,
        quiet: bool,
        no_color: bool,
        findings: bool,
        lang: str | None,
        report: Path | None = None,
        **rest: Any,
    ) -> int:
        path = None if report is None or str(report) == "-" else report
        output = Output(medium, path, quiet, not no_color, findings, lang)
        return output.emit(command(output=output, **rest))

    return _FORM(shown)


_TO_FILE = click.option(
    "-o",
    "--output",
    "report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report to this file instead of stdout.",
)

_FORM = stack(
    click.option("--format", "medium", type=Medium(), default="table", help="How to print it."),
    click.option("-q", "--quiet", is_flag=True, help="Findings only; no talk, no progress."),
    click.option("--no-color", is_flag=True, help="No colours on a terminal."),
    click.option("--findings", is_flag=True, help="A row per finding instead of the usual rows."),
    click.option(
        "--lang",
        type=Language(),
        help="The language of the report; of pages, the locale's where it is one of these.",
    ),
)

model_option = click.option(
    "--model",
    metavar="MODULE:BUILD",
    help="A function of yours that gives the model; its order names the optimizer's states.",
)

rule_options = stack(
    click.option(
        "--select",
        type=Words(),
        multiple=True,
        metavar="RULES",
        shell_complete=rule_codes,
        help="Run only these rules: codes, names or families, e.g. NUM,FIL.",
    ),
    click.option(
        "--ignore",
        type=Words(),
        multiple=True,
        metavar="RULES",
        shell_complete=rule_codes,
        help="Do not run these rules.",
    ),
    click.option(
        "--fail-on",
        type=click.Choice(["error", "warning", "never"]),
        default="error",
        show_default=True,
        help="The least severity that makes the exit code 1.",
    ),
)


def rule_settings(
    select: tuple[tuple[str, ...], ...], ignore: tuple[tuple[str, ...], ...]
) -> dict[str, Any]:
    """Return what the configuration file and the command line say about rules, as keywords.

    ``--select`` replaces the file's selection; ``--ignore`` adds to what it ignores.
    """
    found = click.get_current_context().obj
    return {
        "select": sum(select, ()) or found.select,
        "ignore": (*found.ignore, *sum(ignore, ())),
        "baseline": found.baseline,
        "limits": found.limits,
    }
