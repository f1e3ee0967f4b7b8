from __future__ import annotations

from collections.abc import Iterator

import pytest

from ckptools.rules.registry import clamp, found, rule, rules
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding

DOCSTRING = """One sentence.

What it means
    A.

Why it matters
    B.

False alarms
    Not yet measured; hint.

What to do
    C.

References
    D.
"""


def check(evidence: Evidence) -> Iterator[Finding]:
    yield found("somewhere", "something")


check.__doc__ = DOCSTRING


@pytest.mark.parametrize(
    ("identity", "complaint"),
    [
        (("NU101", "a-name"), "three capital letters"),
        (("NUM1010", "a-name"), "three capital letters"),
        (("num101", "a-name"), "three capital letters"),
        (("XYZ101", "A Name"), "lower-case words"),
        (("XYZ101", "nonfinite-weight"), "taken by NUM101"),
        (("NUM101", "another-name"), "registered twice"),
    ],
)
def test_refuses_a_bad_identity(identity: tuple[str, str], complaint: str) -> None:
    rules.discover()
    with pytest.raises(ValueError, match=complaint):
        rule(*identity, severity="note", confidence="hint")(check)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"severity": "error", "confidence": "hint"}, "a hint cannot be an error"),
        ({"severity": "fatal", "confidence": "hint"}, "no such severity"),
        ({"severity": "note", "confidence": "certain"}, "no such severity"),
        ({"severity": "note", "confidence": "hint", "needs": ("moon",)}, "unknown needs: moon"),
    ],
)
def test_refuses_bad_settings(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        rule("XYZ102", "a-name", **settings)(check)  # type: ignore[arg-type]


def test_refuses_a_docstring_without_headings() -> None:
    def undocumented(evidence: Evidence) -> Iterator[Finding]:
        """Something."""
        yield found("somewhere", "something")

    with pytest.raises(ValueError, match="XYZ103 a-name: the docstring needs the headings"):
        rule("XYZ103", "a-name", severity="note", confidence="hint")(undocumented)


def test_a_refused_rule_is_not_registered() -> None:
    with pytest.raises(ValueError, match="hint"):
        rule("XYZ104", "a-name", severity="error", confidence="hint")(check)
    assert "XYZ104" not in rules.names()


@pytest.mark.parametrize(
    ("severity", "confidence", "allowed"),
    [
        ("error", "proof", "error"),
        ("error", "likely", "error"),
        ("error", "hint", "warning"),
        ("warning", "hint", "warning"),
        ("note", "proof", "note"),
    ],
)
def test_clamp(severity: str, confidence: str, allowed: str) -> None:
    assert clamp(severity, confidence) == allowed


def test_found_has_no_identity() -> None:
    finding = found("target", "message", evidence={"a": 1}, limit=2.0, advice="ckptools explain")
    assert (finding.code, finding.name, finding.severity, finding.confidence) == ("", "", "", "")
    assert (finding.target, finding.evidence, finding.limit) == ("target", {"a": 1}, 2.0)
