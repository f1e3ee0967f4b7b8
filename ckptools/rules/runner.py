"""Runs the rules over one piece of evidence and keeps an account of what did not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ckptools.rules.needs import missing
from ckptools.rules.registry import Rule, clamp
from ckptools.rules.selection import accepts, check_baseline, chosen
from ckptools.types.evidence import Evidence
from ckptools.types.finding import (
    CONFIDENCES,
    SEVERITIES,
    Crashed,
    Finding,
    Judgement,
    Skipped,
)


def judge(
    evidence: Evidence,
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    baseline: Sequence[str] = (),
) -> Judgement:
    """Return what the rules say about ``evidence``, gravest and surest first.

    Parameters
    ----------
    select, ignore: codes, names or the start of a code; ``ignore`` has the last word.
    baseline: accepted findings as "CODE TARGET"; they are reported apart.

    SettingsError for a selector or baseline entry that names no rule.  A rule whose needs are not
    met is skipped with the reason; one that fails is listed as crashed, with what it had found
    before.
    """
    check_baseline(baseline)
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    crashed: list[Crashed] = []
    for rule in chosen(select, ignore):
        reason = missing(rule.needs, evidence)
        if reason is not None:
            skipped.append(Skipped(rule.code, rule.name, reason))
            continue
        error = _collect(rule, evidence, findings)
        if error is not None:
            crashed.append(Crashed(rule.code, rule.name, error))
    findings.sort(key=_gravity)
    known = [any(accepts(entry, finding) for entry in baseline) for finding in findings]
    return Judgement(
        findings=tuple(f for f, old in zip(findings, known, strict=True) if not old),
        skipped=tuple(skipped),
        crashed=tuple(crashed),
        accepted=tuple(f for f, old in zip(findings, known, strict=True) if old),
    )


def _collect(rule: Rule, evidence: Evidence, findings: list[Finding]) -> str | None:
    """Add the rule's findings to ``findings``; return how it failed, or None."""
    try:
        findings.extend(_identified(rule, finding) for finding in rule.run(evidence))
    except Exception as error:  # a rule of ours or of a stranger must not take the others down
        return f"{type(error).__name__}: {error}"
    return None


def _identified(rule: Rule, finding: Finding) -> Finding:
    """Return ``finding`` with the rule's identity, never above the rule's own standing."""
    confidence = _lower(finding.confidence or rule.confidence, rule.confidence, CONFIDENCES)
    severity = _lower(finding.severity or rule.severity, rule.severity, SEVERITIES)
    return replace(
        finding,
        code=rule.code,
        name=rule.name,
        severity=clamp(severity, confidence),
        confidence=confidence,
    )


def _lower(word: str, most: str, scale: tuple[str, ...]) -> str:
    """Return the lower of two words on ``scale``."""
    return scale[min(scale.index(word), scale.index(most))]


def _gravity(finding: Finding) -> tuple[int, int]:
    return -SEVERITIES.index(finding.severity), -CONFIDENCES.index(finding.confidence)
