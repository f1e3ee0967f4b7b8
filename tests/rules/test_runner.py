from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ckptools.errors import SettingsError
from ckptools.rules import judge, runner
from ckptools.rules.registry import Rule, found
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from tests.builders.evidence import Builder
from tests.builders.healthy import transformer


def made(
    check: Callable[..., Iterator[Finding]],
    code: str = "XYZ101",
    *,
    severity: str = "warning",
    confidence: str = "hint",
    needs: tuple[str, ...] = (),
    limit: float | None = None,
) -> Rule:
    return Rule(code, f"rule-{code.lower()}", severity, confidence, needs, limit, check)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the runner run these rules and no others."""

    def install(*rules: Rule) -> None:
        monkeypatch.setattr(runner, "chosen", lambda select, ignore: list(rules))

    return install


def one(evidence: Evidence) -> Iterator[Finding]:
    yield found("somewhere", "something")


def crashing(evidence: Evidence) -> Iterator[Finding]:
    yield found("before", "found before the crash")
    raise ZeroDivisionError("division by zero")


def test_attaches_the_identity(only: Callable[..., None]) -> None:
    only(made(one))
    (finding,) = judge(Evidence()).findings
    assert (finding.code, finding.name) == ("XYZ101", "rule-xyz101")
    assert (finding.severity, finding.confidence) == ("warning", "hint")


def test_a_crash_is_told_and_takes_nothing_down(only: Callable[..., None]) -> None:
    only(made(crashing), made(one, "XYZ102"))
    judgement = judge(Evidence())
    assert [(c.code, c.error) for c in judgement.crashed] == [
        ("XYZ101", "ZeroDivisionError: division by zero")
    ]
    assert [finding.target for finding in judgement.findings] == ["before", "somewhere"]


def test_a_finding_has_no_more_than_its_rule(only: Callable[..., None]) -> None:
    def boasting(evidence: Evidence) -> Iterator[Finding]:
        yield found("a", "louder than the rule", severity="error", confidence="proof")
        yield found("b", "less than the rule", severity="note")

    only(made(boasting))
    findings = judge(Evidence()).findings
    assert [(f.target, f.severity, f.confidence) for f in findings] == [
        ("a", "warning", "hint"),
        ("b", "note", "hint"),
    ]


def test_a_finding_that_is_only_a_hint_is_no_error(only: Callable[..., None]) -> None:
    def doubting(evidence: Evidence) -> Iterator[Finding]:
        yield found("a", "premise unknown", confidence="hint")

    only(made(doubting, severity="error", confidence="proof"))
    (finding,) = judge(Evidence()).findings
    assert (finding.severity, finding.confidence) == ("warning", "hint")


def test_gravest_and_surest_first(only: Callable[..., None]) -> None:
    only(
        made(one, "XYZ101", severity="note"),
        made(one, "XYZ102", severity="warning"),
        made(one, "XYZ103", severity="error", confidence="proof"),
        made(one, "XYZ104", severity="warning", confidence="proof"),
    )
    codes = [finding.code for finding in judge(Evidence()).findings]
    assert codes == ["XYZ103", "XYZ104", "XYZ102", "XYZ101"]


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        ("checkpoint", "no checkpoint"),
        ("measurements", "headers only"),
        ("slots", "no optimizer"),
        ("spectrum", "--spectrum"),
        ("checksums", "--verify"),
        ("earlier", "no earlier"),
        ("changes", "nothing was compared"),
        ("log", "no training log"),
    ],
)
def test_a_missing_need_is_the_reason(only: Callable[..., None], need: str, reason: str) -> None:
    only(made(one, needs=(need,)))
    judgement = judge(Evidence())
    assert judgement.findings == ()
    assert reason in judgement.skipped[0].reason


def test_limit_by_default_and_by_the_user(only: Callable[..., None]) -> None:
    def limited(evidence: Evidence, limit: float) -> Iterator[Finding]:
        yield found("somewhere", "something", limit=limit)

    only(made(limited, limit=3.0))
    assert judge(Evidence()).findings[0].limit == 3.0
    assert judge(Evidence(limits={"XYZ101": 5.0})).findings[0].limit == 5.0


def test_baseline_sets_accepted_findings_apart() -> None:
    weights = transformer(blocks=1)
    weights["head.bias"][0] = float("nan")
    weights["embed.weight"][1, 1] = float("nan")
    evidence = Builder(weights).evidence()
    judgement = judge(evidence, select=["NUM101"], baseline=["NUM101 head.bias"])
    assert [finding.target for finding in judgement.findings] == ["embed.weight"]
    assert [finding.target for finding in judgement.accepted] == ["head.bias"]
    everything = judge(evidence, select=["NUM101"], baseline=["nonfinite-weight *"])
    assert everything.findings == ()
    assert len(everything.accepted) == 2


def test_a_wrong_baseline_is_refused() -> None:
    with pytest.raises(SettingsError, match="one rule and its target"):
        judge(Evidence(), baseline=["NUM101"])
