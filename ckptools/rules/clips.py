"""What rules share about the clip of the gradient norm: which one is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ckptools.rules.changes import premises
from ckptools.types.evidence import Evidence
from ckptools.types.wording import say

if TYPE_CHECKING:  # numpy, which a listing does without
    from ckptools.compare.bounds.result import BoundResult


class Clip(NamedTuple):
    """A limit of the gradient norm; ``argument`` is where it was read, None where a user set it."""

    value: float
    argument: str | None

    def unknown(self, result: BoundResult) -> str:
        """Return what is not known of a broken bound in words, or an empty text."""
        failed = premises([result])
        if failed or self.argument is None:
            return failed
        return say(
            "that {argument} is one clip over all gradients is assumed", argument=self.argument
        )


def in_force(evidence: Evidence, limit: float) -> Clip | None:
    """Return the clip that a rule's limit states, or else the saved arguments; None without any."""
    from ckptools.compare.clipping import limit_in  # numpy

    if limit > 0:
        return Clip(limit, None)
    saved = limit_in(evidence.checkpoint.run) if evidence.checkpoint is not None else None
    return None if saved is None else Clip(saved[1], saved[0])
