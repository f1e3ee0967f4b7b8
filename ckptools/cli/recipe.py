"""Run several operations in order, from a recipe file or a receipt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ckptools.cli.operating import WRITING
from ckptools.cli.options import receipt_options, stack
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@stack(*WRITING)
@receipt_options
def command(
    output: Output, recipe: Path, checkpoint: Path | None, target: Path | None, **options: Any
) -> Result:
    """Run the operations of RECIPE on CHECKPOINT, one after the other.

    RECIPE is TOML with a [[step]] for each operation, its options beside it; or a receipt, whose
    operation is repeated.

    \b
    Examples:
      ckptools recipe plan_b.toml checkpoint_epoch_12.pth
      ckptools recipe checkpoint_epoch_12.reset.receipt.json checkpoint_epoch_13.pth
    """  # noqa: D301  click's mark for a block that keeps its lines
    from ckptools.workflows import operate
    from ckptools.workflows.find import resolve

    return operate.recipe(recipe, resolve(checkpoint, output.say), target, **options)
