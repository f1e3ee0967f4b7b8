"""The command to type after an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ckptools.rules.advice import command

if TYPE_CHECKING:  # a listing loads this rule, too, and has no experiment
    from ckptools.types.verdict import Experiment


def again(experiment: Experiment, *options: str) -> str:
    """Return the command that repeats the experiment with ``options``."""
    words = ["rerun", experiment.checkpoint, "--task", experiment.task]
    if experiment.earlier is not None:
        words += ["--earlier", experiment.earlier]
    return command(*words, *options)


def restore(experiment: Experiment, module: str) -> str:
    """Return the command that brings the first of some modules back from the earlier checkpoint."""
    first = module.split(", ")[0]
    source = experiment.earlier or experiment.checkpoint
    return command("repair", experiment.checkpoint, "--module", first, "--from", source)


def history(experiment: Experiment) -> str:
    """Return the command that looks through the run for the first bad checkpoint."""
    folder = str(Path(experiment.checkpoint).parent)
    return command("rerun", "--bisect", folder, "--task", experiment.task)
