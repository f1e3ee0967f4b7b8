"""Say whether a checkpoint fits a model or another file, with likely renames."""

from __future__ import annotations

from pathlib import Path

import click

from ckptools.cli.options import output_options
from ckptools.cli.output import Output
from ckptools.types.blocks import Result
from ckptools.types.wording import say


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("other", required=False, type=click.Path(path_type=Path))
@click.option("--model", metavar="MODULE:BUILD", help="A function of yours that gives the model.")
@output_options
def command(output: Output, checkpoint: Path, other: Path | None, model: str | None) -> Result:
    """Say whether CHECKPOINT fits OTHER, or the model that --model builds.

    Lists missing, unexpected and wrongly shaped names, with likely renames.  Exit code 0 when it
    fits, 1 when it does not.

    \b
    Examples:
      ckptools fit checkpoint_epoch_12.pth --model lanes.model:build
      ckptools fit pretrained.safetensors checkpoint_epoch_12.pth
    """  # noqa: D301  click's mark for a block that keeps its lines
    from ckptools.workflows.fit import fit

    output.say(say("reading the names of {checkpoint}", checkpoint=str(checkpoint)))
    return fit(checkpoint, other, model=model)
