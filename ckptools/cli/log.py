"""Read training logs, take their losses apart and say what the figures mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ckptools.cli.options import output_options, rule_options, rule_settings
from ckptools.cli.output import Output
from ckptools.types.blocks import Result


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--card",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="TOML",
    help="A run card: weights, clip and plans that the log leaves out.",
)
@click.option(
    "--checkpoints",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Checkpoints of the same run, laid beside the log by step or epoch; files, too.",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT.md",
    help="Write a training record of the last epoch, in Markdown; a new file.",
)
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    metavar="REGEX",
    help="Keys of your own: (?P<term>…), (?P<layer>…) and (?P<phase>…) say what they mean.",
)
@rule_options
@output_options
def command(
    output: Output,
    files: tuple[Path, ...],
    card: Path | None,
    checkpoints: tuple[Path, ...],
    record: Path | None,
    patterns: tuple[str, ...],
    select: tuple[tuple[str, ...], ...],
    ignore: tuple[tuple[str, ...], ...],
    **how: Any,
) -> Result:
    """Audit the training logs FILES: loss weights, counterfactuals, gradients, layers.

    The kind of log is told by its content: free text in English or Chinese (also as trainers,
    progress bars and terminals leave it), mmcv and mmengine text and JSON, DETR log.txt,
    trainer_state.json, JSONL, CSV, TensorBoard event files and offline runs of wandb; text may be
    UTF-8, UTF-16 or GBK, and packed with gzip.

    \b
    Examples:
      ckptools log record.md
      ckptools log work_dir/20260207.log.json --format csv > records.csv
      ckptools log train.log --checkpoints run/ --lang zh
      ckptools log train.log --record epoch_13.md --lang zh
      ckptools log train.log --card run.toml --fail-on warning
    """  # noqa: D301  click's mark for a block that keeps its lines
    from ckptools.workflows.log import log
    from ckptools.workflows.record import record as markdown

    settings = rule_settings(select, ignore)
    found = log(*files, card=card, checkpoints=checkpoints, patterns=patterns, **settings, **how)
    if record is not None:
        output.keep(markdown(found), record)
    return found
