"""Judge a checkpoint in the three modes: by itself, against the epoch before, and in its series."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ckptools
from ckptools.errors import CkptoolsError
from ckptools.rules.registry import rules
from ckptools.types.change import Change
from ckptools.types.finding import Finding
from ckptools.workflows import history
from ckptools.workflows.inspect import inspect
from ckptools.workflows.timeline import timeline


def preload() -> None:
    """Import all of ckptools, so that a long run sees one state of the code."""
    for module in pkgutil.walk_packages(ckptools.__path__, "ckptools."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def judged(path: Path, against: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the findings of ``inspect``, which rules ran, and which crashed.

    A file that cannot be opened is a finding, too: the command line says so with exit code 2.
    """
    try:
        with _changes() as seen:
            outcome = inspect(path, spectrum=True, against=against).outcome.judgement
    except CkptoolsError as error:
        return {"findings": [["OPEN", "error", "proof", "file"]], "ran": [], "error": str(error)}
    silent = {one.code for one in (*outcome.skipped, *outcome.crashed)}
    return {
        "findings": [row(one) for one in outcome.findings],
        "ran": sorted(set(rules.names()) - silent),
        "crashed": [[one.code, one.error] for one in outcome.crashed],
        "relation": seen[0].relation.kind if seen else None,
    }


@contextmanager
def _changes() -> Iterator[list[Change]]:
    """Keep what is compared inside the block: a report says findings, not how files relate."""
    seen: list[Change] = []

    def compare(*args: Any, **options: Any) -> Change:
        seen.append(plain(*args, **options))
        return seen[-1]

    plain, history.compare = history.compare, compare  # type: ignore[assignment]
    try:
        yield seen
    finally:
        history.compare = plain  # type: ignore[assignment]


def row(finding: Finding) -> list[str]:
    """Return what is kept of a finding."""
    return [finding.code, finding.severity, finding.confidence, finding.target]


def series(paths: Sequence[Path]) -> dict[str, Any]:
    """Return what ``timeline`` says: findings by file, and the onset."""
    found = timeline(*paths)
    names = [Path(one.path).name for one in found.series.ordered]
    return {
        "steps": {
            name: [row(one) for one in step.findings]
            for name, step in zip(names, found.steps, strict=True)
        },
        "onset": Path(found.onset["path"]).name if found.onset else None,
        "unreadable": [Path(path).name for path, _ in found.unreadable],
        "foreign": [Path(one.path).name for one in (*found.series.foreign, *found.series.repeated)],
        "crashed": [[one.code, one.error] for one in found.outcome.judgement.crashed],
    }
