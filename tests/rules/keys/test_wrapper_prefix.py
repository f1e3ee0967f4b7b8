from __future__ import annotations

from dataclasses import replace
from functools import partial

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import trained_transformer, transformer


def adapter(*prefixes: str) -> Evidence:
    """Return the evidence of an adapter's file."""
    found = Builder(transformer(), prefixes=prefixes).evidence()
    assert found.checkpoint is not None
    return replace(found, checkpoint=replace(found.checkpoint, layout="peft"))


FIRES_ON = {
    "wrapped_adapter": partial(adapter, "module.", "base_model.model."),
    "parallel": lambda: Builder(transformer(), prefixes=("module.",)).evidence(),
    "compiled": lambda: Builder(transformer(), prefixes=("module.", "_orig_mod.")).evidence(),
}
SILENT_ON = {"plain": trained_transformer, "adapter": partial(adapter, "base_model.model.")}


def test_once_for_the_set() -> None:
    (finding,) = judge(FIRES_ON["compiled"](), select=["KEY101"]).findings
    assert finding.target == "model"
    assert finding.severity == "note"
    assert finding.evidence["prefixes"] == ["module.", "_orig_mod."]
