"""Follow a run through its checkpoints: what moved, since when it is sick, the last good one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ckptools.cli.alone import without_linear_algebra
from ckptools.cli.options import output_options, rule_options, rule_settings
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--cache/--no-cache", "cached", default=True, help="Use and keep earlier results.")
@rule_options
@output_options
def command(
    output: Output,
    paths: tuple[Path, ...],
    select: tuple[tuple[str, ...], ...],
    ignore: tuple[tuple[str, ...], ...],
    **how: Any,
) -> Result:
    """Follow the checkpoints in PATHS (files, or folders; the current one by default).

    \b
    Examples:
      ckptools timeline runs/lanes
      ckptools timeline checkpoint_epoch_*.pth --format csv
    """  # noqa: D301  click's mark for a block that keeps its lines
    without_linear_algebra()
    from ckptools.workflows.timeline import timeline

    with output.progress("comparing") as progress:
        return timeline(
            *(paths or (Path(),)), progress=progress, **rule_settings(select, ignore), **how
        )
