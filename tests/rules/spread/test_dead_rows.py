from __future__ import annotations

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import convolutional, transformer

NAME = "decoder.layers.1.linear1.weight"


def zeroed(rows: slice, columns: slice, name: str = NAME) -> Evidence:
    weights = transformer()
    weights[name][rows, columns] = 0.0
    return Builder(weights).evidence()


EVERY = slice(None)
FIRES_ON = {
    "a_quarter_of_the_rows": lambda: zeroed(slice(0, 32), EVERY),
    "half_of_the_columns": lambda: zeroed(EVERY, slice(0, 16)),
}
SILENT_ON = {
    "one_row": lambda: zeroed(slice(0, 1), EVERY),
    "the_whole_tensor": lambda: zeroed(EVERY, EVERY),
    "unused_tokens": lambda: zeroed(slice(0, 30), EVERY, "embed.weight"),
    "convolutions": convolutional,
}


def test_counts_both() -> None:
    (finding,) = judge(zeroed(slice(0, 32), EVERY), select=["SPR102"]).findings
    assert finding.target == NAME
    assert finding.evidence["dead_rows"] == 32
