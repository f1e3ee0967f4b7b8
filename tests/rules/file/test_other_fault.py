from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from ckptools.rules.file.faults import KINDS
from tests.builders.evidence import fault, with_faults

FIRES_ON = {
    "a_strangers_word": partial(with_faults, [fault("phase-of-the-moon")]),
    "of_an_object": partial(with_faults, [fault("phase-of-the-moon", scope="object")]),
}
SILENT_ON = {kind: partial(with_faults, [fault(kind)]) for kind in sorted(KINDS)}


def test_faults_of_objects_are_warnings() -> None:
    (finding,) = judge(FIRES_ON["of_an_object"](), select=["FIL199"]).findings
    assert finding.severity == "warning"
