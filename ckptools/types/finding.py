"""What a rule says, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: From least to most severe.
SEVERITIES = ("note", "warning", "error")
#: From least to most sure.
CONFIDENCES = ("hint", "likely", "proof")


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement about one target, with what it rests on and what to do.

    Attributes
    ----------
    code, name: the rule, e.g. ``NUM101`` and ``nonfinite-weight``.
    severity: note, warning or error.
    confidence: hint, likely or proof.
    target: tensor, module, record or file.
    message: one line for a person.
    evidence: the numbers behind it.
    limit: the limit that was passed, where there is one.
    advice: the command to type next, where there is one.
    """

    code: str
    name: str
    severity: str
    confidence: str
    target: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    limit: float | None = None
    advice: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON object of the contract."""
        return {
            "code": self.code,
            "name": self.name,
            "severity": self.severity,
            "confidence": self.confidence,
            "target": self.target,
            "message": self.message,
            "evidence": self.evidence,
            "limit": self.limit,
            "advice": self.advice,
        }


@dataclass(frozen=True, slots=True)
class Skipped:
    """A rule that could not run, and why."""

    code: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """A rule that failed: a fault of ours, which never passes for a clean bill."""

    code: str
    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What all rules said about one piece of evidence."""

    findings: tuple[Finding, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    crashed: tuple[Crashed, ...] = ()
    accepted: tuple[Finding, ...] = ()
