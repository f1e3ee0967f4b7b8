"""Ask by experiment whether a checkpoint is damaged, and where; compare plans for going on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from ckptools.cli.options import output_options, stack
from ckptools.cli.output import Output
from ckptools.types.blocks import Result

_ARM = "One arm more: optimizer-reset, lr=x0.1, 'restore=NAME sham=true', ..."

_ENGINE = (
    "Where trainings run: pool, here, ray, torchrun.  Without it arms run in the pool, and the few "
    "steps of the verdict here."
)

_plan_options = stack(
    click.option(
        "--arms",
        "--design",
        "design",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        help="Arms to compare after the verdict.",
    ),
    click.option("--arm", "words", multiple=True, metavar="WORDS", help=_ARM),
    click.option("--steps", type=click.IntRange(0), help="Steps of every arm."),
    click.option("--seeds", type=click.IntRange(1), help="How many seeds every arm gets."),
    click.option("--engine", metavar="NAME", help=_ENGINE),
    click.option("--workers", type=click.IntRange(1), help="Processes that the engine uses."),
    click.option(
        "--trials",
        type=click.Path(path_type=Path),
        help="Where finished trials lie, which are never run again; the user's cache by default.",
    ),
)
_machine_options = stack(
    click.option("--device", default="cpu", show_default=True, help="As torch spells it."),
    click.option("--autocast", type=click.Choice(["bf16", "fp16"]), help="Mixed precision."),
    click.option(
        "--threads",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Of torch; one is fastest for small models.",
    ),
)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option("--task", required=True, metavar="MODULE:NAME", help="Your task; your code runs.")
@click.option("--earlier", type=click.Path(path_type=Path), help="A healthy one of the same run.")
@click.option(
    "--bisect",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Find the first bad checkpoint of a run by evaluation alone.",
)
@click.option("--suspect", "suspects", multiple=True, metavar="PATTERN", help="Clear or confirm.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Of the task.")
@click.option("--lenient", is_flag=True, help="Load what fits, and list what does not.")
@click.option("--all-rungs", is_flag=True, help="Climb on after the answer.")
@_plan_options
@_machine_options
@output_options
def command(
    output: Output,
    checkpoint: Path | None,
    task: str,
    earlier: Path | None,
    bisect: Path | None,
    suspects: tuple[str, ...],
    settings: tuple[str, ...],
    lenient: bool,
    all_rungs: bool,
    design: Path | None,
    words: tuple[str, ...],
    steps: int | None,
    seeds: int | None,
    engine: str | None,
    workers: int | None,
    trials: Path | None,
    **machine: Any,
) -> Result:
    """Find out whether CHECKPOINT is damaged, by running your own task on it.

    Asks from cheap to dear and stops at the first answer.  Exit code 0 when damage is refuted, 1
    when it is supported, 3 when it stays undecided.  With --arms or --arm, plans for going on are
    then trained side by side, on the same batches, and compared.

    TASK is package.module:Name or file.py:Name (a factory that gives a task, a HF Trainer, or a
    LightningModule with its DataModule), or file.py:setup,loss (two plain functions).

    \b
    Examples:
      ckptools rerun checkpoint_epoch_12.pth --task lanes.py:Lanes \\
        --earlier checkpoint_epoch_11.pth
      ckptools rerun checkpoint_epoch_12.pth --task lanes.py:Lanes --arms plans.toml
      ckptools rerun --bisect run/ --task lanes.py:Lanes
    """  # noqa: D301  click's mark for a block that keeps its lines
    given = dict(map(_setting, settings))
    if bisect is not None:
        return _bisected(output, bisect, task, given, lenient, machine)
    if checkpoint is None:
        raise click.UsageError("Missing argument 'CHECKPOINT', or --bisect DIR.")
    from ckptools.workflows.rerun import rerun

    options: dict[str, Any] = {"engine": engine, "workers": workers, "trials": trials}
    output.say(f"running {task} on {checkpoint}")
    with _progress(output) as progress:
        return rerun(
            checkpoint,
            task,
            earlier=earlier,
            suspects=suspects,
            settings=given,
            all_rungs=all_rungs,
            lenient=lenient,
            design=_design(design, words, steps, seeds),
            progress=progress,
            **machine,
            **{name: value for name, value in options.items() if value is not None},
        )


def _bisected(
    output: Output,
    folder: Path,
    task: str,
    settings: dict[str, Any],
    lenient: bool,
    machine: dict[str, Any],
) -> Result:
    from ckptools.workflows.rerun import bisect

    output.say(f"looking for the first bad checkpoint in {folder}")
    return bisect(folder, task, settings=settings, lenient=lenient, **machine)


def _design(path: Path | None, words: tuple[str, ...], steps: int | None, seeds: int | None) -> Any:
    """Return the design of the file and the words together, None where there is neither."""
    if path is None and not words:
        if steps is not None or seeds is not None:
            raise click.UsageError("--steps and --seeds are those of --arms or --arm.")
        return None
    from ckptools.rerun.design import extended

    return extended(path, words, steps=steps, seeds=seeds)


def _progress(
    output: Output,
) -> AbstractContextManager[Callable[[int, int, float | None], None] | None]:
    """Return a bar that counts trials and says how long the others will take, on a terminal."""
    if output.quiet or not sys.stderr.isatty():
        return nullcontext(None)
    return _bar()


@contextmanager
def _bar() -> Iterator[Callable[[int, int, float | None], None]]:
    """Yield progress over trials; the bar itself knows the time left."""
    from ckptools.cli.progress import Progress

    with Progress("trials", unit=" trials") as bar:
        yield lambda done, total, left: bar(done, total)


def _setting(text: str) -> tuple[str, Any]:
    """Return name and value; a value that is not JSON is text."""
    name, sign, value = text.partition("=")
    if not sign:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
