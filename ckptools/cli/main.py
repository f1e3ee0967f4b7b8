"""The entry point: finds commands by their files, and turns every error into an exit code.

A command is a module of this folder (or an entry point in the group ``ckptools.commands``) that
defines ``command``, a click command returning an exit code; its help line is the first line of
the module's docstring, read without importing the module.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from ckptools import __version__, errors
from ckptools.cli import streams
from ckptools.errors import CkptoolsError, WriteError
from ckptools.registry import announced

#: usage, unreadable input, crashed rule, nothing examined
EXIT_UNUSABLE = 2
#: what shells report for a program ended by Ctrl-C
EXIT_INTERRUPTED = 130

GROUP = "ckptools.commands"


#: Each operation of surgery is a command of the same name; see ``cli/operating.py``.
OPERATIONS = Path(__file__).parents[1] / "surgery" / "operations"


@functools.cache
def _help_lines() -> dict[str, str]:
    """Return the help line of each command of ours, read from the sources alone."""
    return _summaries(Path(__file__).parent, "\ndef command(") | _summaries(OPERATIONS, "")


def _summaries(folder: Path, mark: str) -> dict[str, str]:
    """Return the first docstring line of each module that holds ``mark``, by command."""
    sources = {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("[!_]*.py"))}
    return {
        stem.replace("_", "-"): text.partition("\n")[0].strip('"')
        for stem, text in sources.items()
        if mark in text
    }


def _command(name: str) -> click.Command:
    """Import a command of this folder, or make the one of an operation."""
    stem = name.replace("-", "_")
    if (OPERATIONS / f"{stem}.py").exists():
        operating = importlib.import_module("ckptools.cli.operating")
        made: click.Command = operating.command_of(name)
        return made
    command: click.Command = importlib.import_module(f"ckptools.cli.{stem}").command
    return command


class Commands(click.Group):
    """The commands, each imported when it is called and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted({*_help_lines(), *(point.name for point in announced(GROUP))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module; None for an unknown name."""
        help_line = _help_lines().get(cmd_name)
        if help_line is None:
            points = (point for point in announced(GROUP) if point.name == cmd_name)
            return next((point.load() for point in points), None)
        command = _command(cmd_name)
        command.short_help = help_line
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command to run; an unknown one is a usage error with the nearest name."""
        name = args[0]
        if name not in _help_lines() and not name.startswith("-") and not ctx.resilient_parsing:
            known = self.list_commands(ctx)
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                advice = f"did you mean {near[0]}?" if near else f"commands: {', '.join(known)}"
                raise click.UsageError(f"no command {name!r}; {advice}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        lines = {**dict.fromkeys(self.list_commands(ctx), ""), **_help_lines()}
        with formatter.section("Commands"):
            formatter.write_dl(list(lines.items()))


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ckptools")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Forensics and surgery for training checkpoints.

    Tells whether a checkpoint is sick, where, since when and how sure that is; operates on it
    without losing a byte; proves by experiment whether that was the cause.

    Exit codes: 0 no finding at or above --fail-on, 1 findings, 2 usage or unreadable input, 3
    undecided.

    \b
    Shell completion (bash; zsh and fish likewise):
      eval "$(_CKPTOOLS_COMPLETE=bash_source ckptools)"
    """  # noqa: D301  click's mark for a block that keeps its lines
    from ckptools.rules.settings import Settings, find

    ctx.obj = found = find(Path.cwd())
    if found.roles or found.layouts:
        found.declare()
        ctx.call_on_close(Settings().declare)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing but a bug of click escapes.

    With ``--format json`` or ``jsonl``, what goes wrong is also a JSON object on stdout.
    """
    try:
        code = commands.main(list(arguments), prog_name="ckptools", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except CkptoolsError as error:
        return _refuse(arguments, _public_name(error), error.message, error.where, error.next)
    except click.ClickException as error:
        return _misused(arguments, error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("ckptools: interrupted", err=True)
        return EXIT_INTERRUPTED
    except OSError as error:
        where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
        return _refuse(arguments, type(error).__name__, error.strerror or str(error), where, None)
    except Exception as error:
        if os.environ.get("CKPTOOLS_DEBUG"):
            traceback.print_exc()
        advice = "this is a bug of ckptools; CKPTOOLS_DEBUG=1 shows where it happened"
        what = " ".join(str(error).split()) or "no message"
        return _refuse(arguments, type(error).__name__, what, None, advice)


def _public_name(error: CkptoolsError) -> str:
    """Return the class that the family tree shows; readers may have finer ones of their own."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def _misused(arguments: Sequence[str], error: click.ClickException) -> int:
    """Report a command line that click cannot use: its help, or one line and the way to help."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "ckptools"
    if isinstance(error, click.exceptions.UsageError) and not arguments:
        click.echo(commands.get_help(click.Context(commands, info_name="ckptools")), err=True)
        return EXIT_UNUSABLE
    return _refuse(arguments, "UsageError", error.format_message(), None, f"{path} --help")


def _refuse(
    arguments: Sequence[str], error: str, message: str, where: str | None, next: str | None
) -> int:
    """Say in one line what went wrong, where and what to do; return the exit code."""
    from ckptools.cli.refusals import line
    from ckptools.report.escape import escape

    told = line(arguments, error, CkptoolsError(message, where=where, next=next))
    click.echo(f"ckptools: {escape(told)}", err=True)
    if _wants_json(arguments):
        document = {
            "schema": "ckptools.error/1",
            "tool": {"version": __version__},
            "error": error,
            "message": message,
            "where": where,
            "next": next,
            "exit_code": EXIT_UNUSABLE,
        }
        _print_json(document)
    return EXIT_UNUSABLE


def _wants_json(arguments: Sequence[str]) -> bool:
    """Return whether the command line asks for JSON, even where it cannot be parsed."""
    joined = " ".join(arguments).replace("--format=", "--format ")
    return any(f"--format {medium}" in joined for medium in ("json", "jsonl"))


def _print_json(document: dict[str, Any]) -> None:
    """Write one JSON object in one line to stdout; stderr has said it where stdout is full."""
    from ckptools.report.json import dumps

    with contextlib.suppress(WriteError):
        streams.write([dumps(document), "\n"])


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    gc.set_threshold(100_000)  # a file's tree is many objects and no garbage: 5 % of a listing
    for stream in (sys.stdout, sys.stderr):
        streams.fit(stream)
    sys.exit(run(sys.argv[1:]))
