"""What a rule is, and the decorator that gives it its identity.

A rule is a generator over :class:`~ckptools.types.evidence.Evidence` that yields what
:func:`found` returns.  Its code, name, severity and confidence are written once, in the
decorator, and attached to its findings by the runner::

    @rule("NUM101", "nonfinite-weight", severity="error", confidence="proof",
          needs=("measurements",))
    def check(evidence: Evidence) -> Iterator[Finding]:
        ...

A rule with a limit that users may change names its default (``limit=4.0``) and receives the limit
in force as second argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ckptools.registry import Registry
from ckptools.rules.explanation import Explanation, parse, require_headings
from ckptools.rules.needs import NEEDS
from ckptools.types.evidence import Evidence
from ckptools.types.finding import CONFIDENCES, SEVERITIES, Finding

Check = Callable[[Evidence], Iterator[Finding]] | Callable[[Evidence, float], Iterator[Finding]]

_CODE = re.compile(r"[A-Z]{3}[0-9]{3}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its identity.

    Attributes
    ----------
    code: three capital letters (the family) and three digits, never reused.
    name: words joined by hyphens.
    severity, confidence: the most that its findings may have.
    needs: parts of the evidence without which it is skipped (:data:`ckptools.rules.needs.NEEDS`).
    limit: the default of its limit, or None when it has none.
    check: the generator.
    """

    code: str
    name: str
    severity: str
    confidence: str
    needs: tuple[str, ...]
    limit: float | None
    check: Check

    @property
    def explanation(self) -> Explanation:
        """The docstring, taken apart; ValueError where it says nothing under a heading."""
        return parse(self.check.__doc__)

    @property
    def family(self) -> str:
        """The three letters."""
        return self.code[:3]

    def run(self, evidence: Evidence) -> Iterator[Finding]:
        """Return the generator of findings, with the limit in force where the rule has one."""
        if self.limit is None:
            return self.check(evidence)  # type: ignore[call-arg]
        return self.check(evidence, evidence.limits.get(self.code, self.limit))  # type: ignore[call-arg]


#: Every rule by its code.
rules: Registry[Rule] = Registry("rule", package="ckptools.rules", group="ckptools.rules")

_codes_by_name: dict[str, str] = {}


def rule(
    code: str,
    name: str,
    *,
    severity: str,
    confidence: str,
    needs: tuple[str, ...] = (),
    limit: float | None = None,
) -> Callable[[Check], Check]:
    """Return a decorator that registers a generator as the rule ``code``.

    ValueError, hence a failing import, when the identity is malformed or taken, when an error is
    not at least likely, when a hint is more than a warning, when a need is unknown, or when the
    docstring lacks one of the five headings.
    """

    def add(check: Check) -> Check:
        try:
            _check_identity(code, name, severity, confidence, needs)
            require_headings(check.__doc__)
        except ValueError as error:
            raise ValueError(f"rule {code} {name}: {error}") from None
        rules.add(code, Rule(code, name, severity, confidence, needs, limit, check))
        _codes_by_name[name] = code
        return check

    return add


def found(
    target: str,
    message: str,
    *,
    evidence: dict[str, Any] | None = None,
    limit: float | None = None,
    advice: str | None = None,
    severity: str = "",
    confidence: str = "",
) -> Finding:
    """Return a finding without identity, which the runner adds.

    ``severity`` and ``confidence`` are given only where this one finding has less than its rule.
    """
    return Finding("", "", severity, confidence, target, message, evidence or {}, limit, advice)


def _check_identity(
    code: str, name: str, severity: str, confidence: str, needs: tuple[str, ...]
) -> None:
    """Raise ValueError when the identity of a rule is malformed, taken or contradicts itself."""
    if not _CODE.fullmatch(code):
        raise ValueError("a code is three capital letters and three digits")
    if not _NAME.fullmatch(name):
        raise ValueError("a name is made of lower-case words joined by hyphens")
    if name in _codes_by_name:
        raise ValueError(f"the name is taken by {_codes_by_name[name]}")
    if severity not in SEVERITIES or confidence not in CONFIDENCES:
        raise ValueError(f"no such severity or confidence: {severity}, {confidence}")
    if clamp(severity, confidence) != severity:
        raise ValueError(f"a {confidence} cannot be an {severity}")
    unknown = [need for need in needs if need not in NEEDS]
    if unknown:
        raise ValueError(f"unknown needs: {', '.join(unknown)}; known: {', '.join(NEEDS)}")


def clamp(severity: str, confidence: str) -> str:
    """Return the severity that ``confidence`` allows: a hint is at most a warning."""
    return "warning" if confidence == "hint" and severity == "error" else severity
