"""Which rules run, and which findings are accepted: by code, name or the start of a code."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

from ckptools.errors import SettingsError
from ckptools.rules.registry import Rule, rules
from ckptools.types.finding import Finding


def matches(selector: str, rule: Rule) -> bool:
    """Return whether ``selector`` is the rule's name, its code or the start of its code.

    A code is shortened to its family at most: ``NUM`` and ``NUM1`` select, ``NU`` does not.
    """
    return selector.lower() == rule.name or (
        len(selector) >= 3 and rule.code.startswith(selector.upper())
    )


def chosen(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> list[Rule]:
    """Return the rules that ``select`` names (all when it is empty) and ``ignore`` does not.

    SettingsError when a selector names no rule: a misspelt one would silently choose nothing.
    """
    for selector in (*select, *ignore):
        require(selector)
    return [
        rule
        for rule in rules
        if (not select or any(matches(selector, rule) for selector in select))
        and not any(matches(selector, rule) for selector in ignore)
    ]


def require(selector: str) -> list[Rule]:
    """Return the rules that ``selector`` names; SettingsError with the nearest when none."""
    named = [rule for rule in rules if matches(selector, rule)]
    if not named:
        known = sorted({word for rule in rules for word in (rule.family, rule.code, rule.name)})
        raise SettingsError(
            f"no rule is called {selector!r}",
            next=nearest(selector, known) or "ckptools explain lists all of them",
        )
    return named


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return "did you mean ..." with the known words nearest to ``word``, or None."""
    by_fold = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(word.casefold(), by_fold, n=3, cutoff=0.5)
    return f"did you mean {', '.join(by_fold[match] for match in close)}?" if close else None


def accepts(entry: str, finding: Finding) -> bool:
    """Return whether the baseline's ``entry`` ("CODE TARGET") stands for ``finding``.

    CODE may be a name; TARGET is the finding's target or a glob over it.
    """
    selector, _, target = entry.partition(" ")
    return selector.lower() in (finding.code.lower(), finding.name) and (
        target == finding.target or fnmatch.fnmatchcase(finding.target, target)
    )


def check_baseline(entries: Iterable[str]) -> None:
    """Raise SettingsError for an entry that is not "CODE TARGET" with a rule's code or name."""
    for entry in entries:
        selector, _, target = entry.partition(" ")
        exact = [rule for rule in require(selector) if selector.lower() in _identities(rule)]
        if not exact or not target.strip():
            raise SettingsError(
                f"a baseline entry names one rule and its target, not {entry!r}",
                next='write it like "NUM106 decoder.layers.3.bias"; a target may be a glob',
            )


def _identities(rule: Rule) -> tuple[str, str]:
    return rule.code.lower(), rule.name
