from __future__ import annotations

from ckptools.rules import judge
from tests.builders.evidence import Builder
from tests.builders.healthy import trained_transformer, transformer

FIRES_ON = {
    "parallel": lambda: Builder(transformer(), prefixes=("module.",)).evidence(),
    "compiled": lambda: Builder(transformer(), prefixes=("module.", "_orig_mod.")).evidence(),
}
SILENT_ON = {"plain": trained_transformer}


def test_once_for_the_set() -> None:
    (finding,) = judge(FIRES_ON["compiled"](), select=["KEY101"]).findings
    assert finding.target == "model"
    assert finding.severity == "note"
    assert finding.evidence["prefixes"] == ["module.", "_orig_mod."]
