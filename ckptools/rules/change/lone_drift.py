"""CHG208: one block of a stack that moved much more, or much less, than its siblings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import exp, hypot, log
from typing import TYPE_CHECKING

from ckptools.names.stacks import places
from ckptools.rules import advice
from ckptools.rules.changes import matrices, of_one_run
from ckptools.rules.middle import median
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Change, Match

#: Fewer siblings do not say what is usual.
_FEWEST = 4

Block = tuple[str, str, int]


@rule(
    "CHG208",
    "lone-drift",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "changes"),
    limit=4.0,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """One block moved many times as far as its siblings, or as little.

    What it means
        The norm of its change over its own norm is beyond the limit, as a factor, from the median
        of the stack's blocks, and further from it than the others are among themselves.

    Why it matters
        Blocks of one stack have one learning rate and one kind of gradient; a block that runs away
        alone was written to, has another optimizer state, or diverges; one that stands nearly
        still is not trained.

    False alarms
        Measured: 0 of 308 healthy pairs, and 1 of 355 of twelve later families (below 1.4 % with 95
        % confidence). Layer-wise learning rates spread over a stack gradually, so they raise the
        spread of the others, too; first and last blocks move more than the rest in some runs.
        Frozen blocks are left out.

    What to do
        Compare the block over the series (ckptools timeline), and its group's learning rate with
        its siblings'.

    References
        None: a ratio of Frobenius norms.
    """
    for change in of_one_run(evidence):
        stacks: dict[tuple[str, str], dict[Block, float]] = defaultdict(dict)
        for block, moved in _moved(change).items():
            stacks[block[:2]][block] = log(moved)
        for blocks in stacks.values():
            yield from _outliers(evidence, blocks, limit)


def _outliers(evidence: Evidence, blocks: dict[Block, float], limit: float) -> Iterator[Finding]:
    if len(blocks) < _FEWEST:
        return
    usual = median(blocks.values())
    for block, moved in blocks.items():
        others = [abs(value - usual) for key, value in blocks.items() if key != block]
        far = abs(moved - usual)
        if far > log(limit) and far > 3 * max(others):
            factor = exp(moved - usual)
            target = f"{block[1]}.{block[2]}"
            yield found(
                target,
                say("moved {factor:.3g} times as far as its siblings", factor=factor),
                evidence={"factor": factor, "siblings": len(others)},
                limit=limit,
                advice=advice.restore(evidence, target),
            )


def _moved(change: Change) -> dict[Block, float]:
    """Return the relative change of every block that moved, by set, stack and index."""
    parts: dict[Block, list[Match]] = defaultdict(list)
    for name, matches in _by_set(change).items():
        found_places = places([match.name_b for match in matches])
        for match in matches:
            place = found_places[match.name_b]
            if place.stack is not None and place.block is not None:
                parts[name, place.stack, place.block].append(match)
    sizes = {block: (_change(held), _norm(held)) for block, held in parts.items()}
    return {block: moved / norm for block, (moved, norm) in sizes.items() if moved and norm}


def _by_set(change: Change) -> dict[str, list[Match]]:
    sets: dict[str, list[Match]] = defaultdict(list)
    for match in matrices(change):
        sets[match.set].append(match)
    return sets


def _change(matches: list[Match]) -> float:
    return hypot(*((match.relative_change or 0.0) * (match.norm_a or 0.0) for match in matches))


def _norm(matches: list[Match]) -> float:
    return hypot(*(match.norm_a or 0.0 for match in matches))
