"""The whole story on the bundled example: train, damage, find, prove, cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ckptools.cli.options import output_options
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--epochs", type=click.IntRange(1), help="How long to train.")
@click.option("--seed", type=int, help="The seed of data and weights.")
@click.option("--fault", metavar="NAME", help="Which fault to plant.")
@output_options
def command(output: Output, folder: Path | None, **settings: Any) -> Result:
    """Train a small lane detector into FOLDER, damage its last checkpoint, find and cure it.

    Without FOLDER, a temporary one is made.  It takes about a minute on a CPU.
    """
    from ckptools.workflows.demo import demo

    given = {name: value for name, value in settings.items() if value is not None}
    return demo(folder, talk=output.say, **given)
