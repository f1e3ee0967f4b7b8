from __future__ import annotations

from ckptools.rules import judge
from ckptools.types.container import GlobalUse
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import transformer


def naming(*uses: GlobalUse) -> Evidence:
    builder = Builder(transformer(blocks=1))
    builder.globals = uses
    return builder.evidence()


KNOWN = GlobalUse("torch._utils._rebuild_tensor_v2", "known", 16)
FIRES_ON = {
    "dangerous": lambda: naming(KNOWN, GlobalUse("os.system", "dangerous")),
    "unknown": lambda: naming(KNOWN, GlobalUse("lanes.model.LaneNet", "unknown")),
    "both": lambda: naming(GlobalUse("os.system", "dangerous"), GlobalUse("a.B", "unknown")),
}
SILENT_ON = {"known": lambda: naming(KNOWN, GlobalUse("argparse.Namespace", "known"))}


def test_dangerous_is_an_error_and_unknown_a_note() -> None:
    findings = judge(FIRES_ON["both"](), select=["FIL104"]).findings
    assert [(finding.target, finding.severity) for finding in findings] == [
        ("os.system", "error"),
        ("pickle", "note"),
    ]


def test_unknown_names_are_one_finding() -> None:
    uses = [GlobalUse(f"project.module.Class{number}", "unknown") for number in range(40)]
    (finding,) = judge(naming(*uses), select=["FIL104"]).findings
    assert len(finding.evidence["globals"]) == 40
