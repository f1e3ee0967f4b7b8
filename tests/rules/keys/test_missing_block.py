from __future__ import annotations

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import adapter, sequential, transformer


def without(*blocks: int, of: int = 6) -> Evidence:
    weights = {
        name: values
        for name, values in transformer(blocks=of).items()
        if not any(name.startswith(f"decoder.layers.{block}.") for block in blocks)
    }
    return Builder(weights).evidence()


FIRES_ON = {"one": lambda: without(3), "several": lambda: without(2, 3, 7, of=12)}
SILENT_ON = {
    "shortened_from_the_end": lambda: without(4, 5),
    "shortened_from_the_front": lambda: without(0),
    "every_second": lambda: without(1, 3, 5),
    "sequence": sequential,
    "adapter_on_chosen_blocks": adapter,
}


def test_names_the_stack_and_the_blocks() -> None:
    (finding,) = judge(without(2, 3, 7, of=12), select=["KEY103"]).findings
    assert finding.target == "decoder.layers"
    assert finding.evidence["missing"] == [2, 3, 7]
