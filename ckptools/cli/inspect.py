"""Open a checkpoint, measure it in one pass and say what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ckptools.cli.alone import without_linear_algebra
from ckptools.cli.options import model_option, output_options, rule_options, rule_settings
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("--list", "list_only", is_flag=True, help="Read headers only; measure nothing.")
@click.option("--by", type=click.Choice(["tensor", "module"]), help="Rows by tensor or by module.")
@click.option("--depth", type=click.IntRange(1), help="Group by the first N parts of the names.")
@click.option("--grep", metavar="REGEX", help="Show only names that match.")
@click.option("--sort", metavar="COLUMN", help="Sort by a column: names rise, numbers fall.")
@click.option("--top", type=click.IntRange(0), help="Show so many rows; 0 shows all.")
@click.option(
    "--verify/--no-verify",
    default=None,
    help="Verify all checksums; by default below 1 GiB.",
)
@click.option("--spectrum", is_flag=True, help="Also compute singular-value measures.")
@click.option(
    "--save-measures",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the measurements; later commands take the file in place of the checkpoint.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="EARLIER",
    help="Compare with an earlier checkpoint of the run, too; repeatable.",
)
@model_option
@rule_options
@output_options
def command(
    output: Output,
    checkpoint: Path | None,
    by: str | None,
    depth: int | None,
    grep: str | None,
    sort: str | None,
    top: int | None,
    select: tuple[tuple[str, ...], ...],
    ignore: tuple[tuple[str, ...], ...],
    **how: Any,
) -> Result:
    """Inspect CHECKPOINT: what is in it, and what is wrong with it.

    Without CHECKPOINT, the only one of the current folder is taken.  Nothing in the file is
    executed.

    \b
    Examples:
      ckptools inspect checkpoint_epoch_12.pth
      ckptools inspect model.safetensors --by tensor --sort abs_max --top 20
      ckptools inspect last.ckpt --list --grep 'lora_A' --format csv
    """  # noqa: D301  click's mark for a block that keeps its lines
    from ckptools.workflows.find import resolve
    from ckptools.workflows.inspect import Shown, inspect

    if not (how["spectrum"] or how["list_only"]):
        without_linear_algebra()
    path = resolve(checkpoint, output.say)
    with output.progress("reading") as progress:
        found = inspect(
            path,
            shown=Shown(by or ("module" if depth else None), depth, grep, sort, top),
            progress=progress,
            **rule_settings(select, ignore),
            **how,
        )
    for remark in found.measurements.remarks if found.measurements is not None else ():
        output.say(remark)
    return found
