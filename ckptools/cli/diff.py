"""Compare two checkpoints: what moved, whether it can have, and how they are related."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ckptools.cli.alone import without_linear_algebra
from ckptools.cli.options import model_option, output_options, rule_options, rule_settings
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", required=False, type=click.Path(path_type=Path))
@model_option
@rule_options
@output_options
def command(
    output: Output,
    a: Path,
    b: Path | None,
    select: tuple[tuple[str, ...], ...],
    ignore: tuple[tuple[str, ...], ...],
    **how: Any,
) -> Result:
    """Compare checkpoint B with the older A, tensor by tensor.

    Tensors are aligned by name, by a renaming rule, then by content; optimizer states are held
    against every bound that training obeys.  Without B, a second weight set of A (EMA, SWA) is
    compared with its first.  Files of --save-measures may stand in for checkpoints.

    \b
    Examples:
      ckptools diff checkpoint_epoch_11.pth checkpoint_epoch_12.pth
      ckptools diff base.safetensors tuned.safetensors --format csv
      ckptools diff with_ema.ckpt
    """  # noqa: D301  click's mark for a block that keeps its lines
    without_linear_algebra()
    from ckptools.workflows.diff import diff

    with output.progress("comparing") as progress:
        return diff(a, b, progress=progress, **rule_settings(select, ignore), **how)
