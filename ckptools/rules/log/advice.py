"""The command to type next, for findings about a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptools.rules.advice import command

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


def again(audit: Audit, *options: str) -> str:
    """Return the command that looks at the same logs with ``options``."""
    return command("log", *audit.log.sources, *options)


def target(audit: Audit) -> str:
    """Return the name of the last log, for findings about the whole."""
    return audit.log.sources[-1] if audit.log.sources else "log"


def formula(weights: dict[str, float]) -> str:
    """Return a weighted sum as text, e.g. ``2·cls + 5·pts``."""
    return " + ".join(f"{weight:g}·{term}" for term, weight in weights.items())
