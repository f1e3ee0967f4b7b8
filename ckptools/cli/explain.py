"""Print what a rule means, why it matters, its false alarms and what to do."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from ckptools.cli.options import output_options
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


def _codes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the codes that begin with what was typed, for the shell."""
    from ckptools.rules import rules

    typed = incomplete.upper()
    return [CompletionItem(one.code, help=one.name) for one in rules if one.code.startswith(typed)]


@click.command()
@click.argument("code", required=False, shell_complete=_codes)
@output_options
def command(output: Output, code: str | None) -> Result:
    """Explain the rule CODE (NUM101, or its name); without one, list all rules."""
    from ckptools.workflows.explain import explain

    return explain(code)
