"""Ask by experiment whether a checkpoint is damaged, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ckptools.cli.options import output_options
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--task", required=True, metavar="MODULE:NAME", help="Your task; your code runs.")
@click.option("--earlier", type=click.Path(path_type=Path), help="A healthy one of the same run.")
@click.option("--suspect", "suspects", multiple=True, metavar="PATTERN", help="Clear or confirm.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Of the task.")
@click.option("--lenient", is_flag=True, help="Load what fits, and list what does not.")
@click.option("--all-rungs", is_flag=True, help="Climb on after the answer.")
@output_options
def command(
    output: Output,
    checkpoint: Path,
    task: str,
    earlier: Path | None,
    suspects: tuple[str, ...],
    settings: tuple[str, ...],
    lenient: bool,
    all_rungs: bool,
) -> Result:
    """Find out whether CHECKPOINT is damaged, by running your own task on it.

    Asks from cheap to dear and stops at the first answer.  Exit code 0 when damage is refuted, 1
    when it is supported, 3 when it stays undecided.

    \b
    Example:
      ckptools rerun checkpoint_epoch_12.pth --task lanes.py:Lanes \\
        --earlier checkpoint_epoch_11.pth
    """  # noqa: D301  click's mark for a block that keeps its lines
    from ckptools.workflows.rerun import rerun

    output.say(f"running {task} on {checkpoint}")
    return rerun(
        checkpoint,
        task,
        earlier=earlier,
        suspects=suspects,
        settings=dict(map(_setting, settings)),
        all_rungs=all_rungs,
        lenient=lenient,
    )


def _setting(text: str) -> tuple[str, Any]:
    """Return name and value; a value that is not JSON is text."""
    name, sign, value = text.partition("=")
    if not sign:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
