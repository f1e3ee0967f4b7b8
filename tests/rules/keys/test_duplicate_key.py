from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from ckptools.types.tree import Global, Instance, Pairs
from tests.builders.evidence import Builder, fault, with_faults
from tests.builders.healthy import transformer


def pickled(*keys: object, deep: int = 0) -> Evidence:
    builder = Builder(transformer(blocks=1))
    state = Instance(Global("collections", "OrderedDict"))
    state.pairs = [(key, number) for number, key in enumerate(keys)]
    root: object = Pairs([("model", state), ("epoch", 3)])
    for _ in range(deep):
        root = Pairs([("inner", [root])])
    builder.root = root
    return builder.evidence()


def cyclic() -> Evidence:
    builder = Builder(transformer(blocks=1))
    loop = Pairs([("a", 1)])
    loop.entries.append(("self", loop))
    builder.root = [loop, (loop, loop)]
    return builder.evidence()


FIRES_ON = {
    "in_a_header": partial(with_faults, [fault("duplicate-key")]),
    "in_a_pickle": partial(pickled, "fc.weight", "fc.bias", "fc.weight"),
    "deep_down": partial(pickled, "a", "a", deep=5000),
}
SILENT_ON = {
    "all_different": partial(pickled, "fc.weight", "fc.bias", 1, "1", None, True),
    "cyclic": cyclic,
}


def test_names_the_key() -> None:
    (finding,) = judge(FIRES_ON["in_a_pickle"](), select=["KEY106"]).findings
    assert finding.target == "fc.weight"
    assert finding.severity == "error"
