"""The command to type next, ready to be pasted into a shell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from ckptools.types.evidence import Evidence


def command(*words: str) -> str:
    """Return ``ckptools`` with these words, quoted where the shell needs it."""
    return shlex.join(("ckptools", *words))


def path_of(evidence: Evidence) -> str:
    """Return the path of the checkpoint judged, as the user gave it."""
    return evidence.checkpoint.path if evidence.checkpoint is not None else "."


def inspect(evidence: Evidence, *options: str) -> str:
    """Return the command that looks at the checkpoint again with ``options``."""
    return command("inspect", path_of(evidence), *options)


def restore(evidence: Evidence, module: str | None) -> str:
    """Return the command that brings ``module`` back from the nearest earlier checkpoint.

    Without one at hand, or where all modules are concerned (None), it is the command that finds
    the last good one of the folder.
    """
    if not evidence.earlier or module is None:
        return history(evidence)
    source = path_of(evidence.earlier[0])
    return command("repair", path_of(evidence), "--module", module, "--from", source)


def history(evidence: Evidence) -> str:
    """Return the command that follows the run through the checkpoint's folder."""
    return command("timeline", str(Path(path_of(evidence)).parent))


def grep(name: str) -> str:
    """Return ``name`` as the pattern that finds it; escaped only where it has to be."""
    return name if re.fullmatch(r"[\w.-]*", name) else re.escape(name)
