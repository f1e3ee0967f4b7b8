"""The commands of surgery: one for each registered operation, made from its own options."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from ckptools.cli.options import receipt_options, stack
from ckptools.cli.output import Output
from ckptools.surgery.operation import Operation, Option, operations
from ckptools.types.blocks import Result

#: options whose Python name is not their word on the command line
_WORDS = {"from_checkpoint": "--from"}


def command_of(name: str) -> click.Command:
    """Return the click command of the operation ``name``."""
    operation = operations.get(name)

    @stack(*WRITING)
    @receipt_options
    def command(
        output: Output,
        checkpoint: Path | None,
        target: Path | None,
        force: bool,
        dry_run: bool,
        in_place: bool,
        verify: bool | None,
        **parameters: Any,
    ) -> Result:
        from ckptools.workflows.find import resolve
        from ckptools.workflows.operate import operate

        return operate(
            name,
            resolve(checkpoint, output.say),
            target,
            force=force,
            dry_run=dry_run,
            in_place=in_place,
            verify=verify,
            **parameters,
        )

    made = click.command(name, help=_help(operation))(command)
    made.params[:0] = [
        click.Argument(["checkpoint"], required=False, type=click.Path(path_type=Path)),
        *(_option(key, option) for key, option in operation.options.items()),
    ]
    return made


def _help(operation: Operation) -> str:
    """Return the plan's docstring and where the result goes."""
    where = (
        f"The result is written to STEM.{operation.name}.pth beside CHECKPOINT (of a folder of "
        f"shards to FOLDER.{operation.name}), with a receipt and an undo file; the source is never "
        "changed without --in-place."
    )
    return f"{inspect.cleandoc(operation.help)}\n\n{where}"


def _option(key: str, option: Option) -> click.Option:
    word = _WORDS.get(key, f"--{key.replace('_', '-')}")
    if option.kind == "flag":
        return click.Option([word, key], is_flag=True, help=option.help)
    kind: Any = {"path": click.Path(path_type=str)}.get(option.kind, option.kind)
    return click.Option(
        [word, key],
        type=click.Choice(option.choices) if option.choices else kind,
        default=option.default,
        required=option.required,
        multiple=option.multiple,
        show_default=option.default is not None,
        help=option.help,
    )


#: the options of every command that writes a checkpoint
WRITING = (
    click.option(
        "-o", "--output", "target", type=click.Path(path_type=Path), help="The new checkpoint."
    ),
    click.option("--force", is_flag=True, help="Replace the new checkpoint if it exists."),
    click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing."),
    click.option(
        "--in-place", is_flag=True, help="Replace CHECKPOINT itself; the undo file is kept."
    ),
    click.option(
        "--verify/--no-verify",
        default=None,
        help="Hash every byte and read all of it back; by default below 1 GiB and in place.",
    ),
)
