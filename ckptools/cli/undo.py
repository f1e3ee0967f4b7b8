"""Give back, byte for byte, the checkpoint that an operation started from."""

from __future__ import annotations

from pathlib import Path

import click

from ckptools.cli.options import receipt_options
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("receipt", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path),
    help="Where to write it; its old path by default.",
)
@click.option("--force", is_flag=True, help="Replace the file that is there now.")
@receipt_options
def command(output: Output, receipt: Path, target: Path | None, force: bool) -> Result:
    """Undo the operation of RECEIPT, from its undo file and its output.

    The source comes back byte for byte, and its SHA-256 is compared.  RECEIPT may also be the undo
    file or the output itself.

    \b
    Examples:
      ckptools undo checkpoint_epoch_12.reset.receipt.json
      ckptools undo checkpoint_epoch_12.reset.pth -o checkpoint_epoch_12.back.pth
    """  # noqa: D301  click's mark for a block that keeps its lines
    from ckptools.workflows.operate import undo

    return undo(receipt, target, force=force)
