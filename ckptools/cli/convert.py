"""Write a checkpoint in another container, and list what it cannot carry."""

from __future__ import annotations

from pathlib import Path

import click

from ckptools.cli.options import receipt_options
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Choice(["safetensors", "torch-zip"]),
    help="The container to write; by default as the new name says, else safetensors.",
)
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path),
    help="The new checkpoint; by default it lies beside the source.",
)
@click.option("--force", is_flag=True, help="Replace the new checkpoint if it exists.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@receipt_options
def command(
    output: Output,
    checkpoint: Path,
    target: Path | None,
    to: str | None,
    force: bool,
    dry_run: bool,
) -> Result:
    """Convert CHECKPOINT to another container, tensor for tensor, bit for bit.

    What the new container cannot hold is listed; nothing is dropped in silence, and the source
    is never touched.

    \b
    Examples:
      ckptools convert checkpoint_epoch_12.pth
      ckptools convert model.safetensors -o model.pth
    """  # noqa: D301  click's mark for a block that keeps its lines
    from ckptools.workflows.convert import convert

    return convert(checkpoint, target, to=to, force=force, dry_run=dry_run)
