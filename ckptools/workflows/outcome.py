"""What every judged result says in the same way: its findings, its silence, its exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ckptools import __version__
from ckptools.types.blocks import Block, FindingList, Heading, Paragraph
from ckptools.types.finding import SEVERITIES, Finding, Judgement, Skipped
from ckptools.types.wording import count, join, say


@dataclass(frozen=True, slots=True)
class Outcome:
    """A judgement with everything that was not looked at.

    Attributes
    ----------
    judgement: what the rules said.
    not_judged: parts of the input that were not looked at, with the reason.
    fail_on: the least severity that makes the exit code 1, or "never".
    nothing_examined: why there was nothing to judge, or None.
    rules_run: how many rules had their say.
    """

    judgement: Judgement
    not_judged: tuple[str, ...] = ()
    fail_on: str = "error"
    nothing_examined: str | None = None
    rules_run: int | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, gravest first."""
        return self.judgement.findings

    @property
    def exit_code(self) -> int:
        """Return 2 after a crashed rule, 1 with findings that count, 2 with nothing examined."""
        if self.judgement.crashed:
            return 2
        if self.fail_on != "never":
            least = SEVERITIES.index(self.fail_on)
            if any(SEVERITIES.index(one.severity) >= least for one in self.findings):
                return 1
        return 2 if self.nothing_examined else 0

    def document(self) -> dict[str, Any]:
        """Return the fields that every document shares.

        With exit code 2 they include those of an error, so that a script finds both.
        """
        code = self.exit_code
        fields: dict[str, Any] = {
            "tool": {"version": __version__},
            "findings": [finding.document() for finding in self.findings],
            "accepted": [finding.document() for finding in self.judgement.accepted],
            "crashed": [
                {"code": one.code, "name": one.name, "error": one.error}
                for one in self.judgement.crashed
            ],
            "skipped": [
                {"code": one.code, "name": one.name, "reason": one.reason}
                for one in self.judgement.skipped
            ],
            "not_judged": list(self.not_judged),
            "fail_on": self.fail_on,
            "exit_code": code,
        }
        return fields | (self._error() if code == 2 else {})

    def _error(self) -> dict[str, Any]:
        """Return the error's fields."""
        crashed = self.judgement.crashed
        if crashed:
            names = ", ".join(one.code for one in crashed)
            return {
                "error": "CrashedRule",
                "message": say(
                    "{number} rules failed, so this is no clean bill: {names}",
                    number=len(crashed),
                    names=names,
                ),
                "where": crashed[0].code,
                "next": say(
                    "--ignore {crashed} leaves them out",
                    crashed=join((one.code for one in crashed), ","),
                ),
            }
        return {
            "error": "NothingExamined",
            "message": self.nothing_examined,
            "where": None,
            "next": None,
        }

    def summary(self) -> str:
        """Return the findings in a few words, e.g. ``1 error, 2 warnings``."""
        counts = Counter(finding.severity for finding in self.findings)
        words = [
            count(counts[severity], severity)
            for severity in reversed(SEVERITIES)
            if counts[severity]
        ]
        return join(words) if words else say("no findings")

    def opening(self) -> list[Block]:
        """Return what stands first on a page: findings, or that there are none; crashes."""
        blocks: list[Block] = []
        if self.nothing_examined:
            blocks.append(
                Paragraph(
                    say(
                        "nothing was examined: {nothing_examined}",
                        nothing_examined=self.nothing_examined,
                    ),
                    "bad",
                )
            )
        for one in self.judgement.crashed:
            text = say(
                "rule {code} {name} failed, a bug of ckptools: {error}",
                code=one.code,
                name=one.name,
                error=one.error,
            )
            blocks.append(Paragraph(text, "bad"))
        if self.findings:
            blocks.append(FindingList(self.findings))
        elif not self.nothing_examined and not self.judgement.crashed:
            ran = (
                say(" by {rules}", rules=count(self.rules_run, "rule"))
                if self.rules_run is not None
                else ""
            )
            left = say("; what they did not see stands at the end") if self.closing() else ""
            blocks.append(Paragraph(say("nothing found{ran}{left}", ran=ran, left=left), "good"))
        return blocks

    def closing(self) -> list[Block]:
        """Return what stands last on a page: everything that silence does not cover."""
        lines: list[str] = [say("- {line}", line=_shortened(reason)) for reason in self.not_judged]
        lines += [say("- {line}", line=line) for line in _skipped(self.judgement.skipped)]
        if self.judgement.accepted:
            lines.append(
                say(
                    "- {number} findings accepted by the baseline",
                    number=len(self.judgement.accepted),
                )
            )
        return [Heading(say("Not judged")), Paragraph(join(lines, "\n"))] if lines else []


def _skipped(skipped: tuple[Skipped, ...]) -> Iterator[str]:
    """Yield one line per reason for which rules did not run."""
    for reason, group in groupby(
        sorted(skipped, key=lambda one: one.reason), lambda one: one.reason
    ):
        codes = _ranges(sorted(one.code for one in group))
        yield say("{reason}: {codes}", reason=reason, codes=join(codes))


def _ranges(codes: list[str]) -> list[str]:
    """Return sorted codes with three or more that follow each other as one, ``LOG101-109``."""
    runs: list[list[str]] = []
    for code in codes:
        if runs and _follows(runs[-1][-1], code):
            runs[-1].append(code)
        else:
            runs.append([code])
    found: list[str] = []
    for run in runs:
        found += run if len(run) < 3 else [f"{run[0]}-{run[-1][3:]}"]
    return found


def _follows(code: str, later: str) -> bool:
    """Return whether one code is the next after another of its family."""
    number = later[3:]
    return code[:3] == later[:3] and number.isdigit() and code[3:] == str(int(number) - 1)


def _shortened(reason: str, limit: int = 300) -> str:
    """Return a reason that holds no line end and does not drown the page."""
    line = " ".join(reason.split())
    if line == reason and len(line) <= limit:
        return reason
    return line if len(line) <= limit else line[: limit - 1] + "…"
