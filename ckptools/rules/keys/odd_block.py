"""What the rules on odd blocks share: the one block of a stack that differs from all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator

from ckptools.rules.weights import Siblings, siblings
from ckptools.types.checkpoint import Checkpoint, NamedTensor

#: With fewer blocks than this no majority says what is normal.
LEAST_BLOCKS = 4


def odd_blocks(
    checkpoint: Checkpoint, trait: Callable[[NamedTensor], Hashable]
) -> Iterator[tuple[Siblings, int]]:
    """Iterate over (siblings, block) where one inner block alone differs in ``trait``.

    The first and last blocks of a stack differ by design too often to be taken for odd.
    """
    for group in siblings(checkpoint, at_least=LEAST_BLOCKS):
        traits = {block: trait(tensor) for block, tensor in group.members.items()}
        counts = Counter(traits.values())
        usual, number = counts.most_common(1)[0]
        odd = [block for block, value in traits.items() if value != usual]
        if len(odd) == 1 and number == len(traits) - 1 and min(traits) < odd[0] < max(traits):
            yield group, odd[0]
