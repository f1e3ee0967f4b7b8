"""Print what a rule means, why it matters, its false alarms and what to do."""

from __future__ import annotations

import click

from ckptools.cli.options import output_options, rule_codes
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("code", required=False, shell_complete=rule_codes)
@output_options
def command(output: Output, code: str | None) -> Result:
    """Explain the rule CODE (NUM101, or its name); without one, list all rules."""
    from ckptools.workflows.explain import explain

    return explain(code)
