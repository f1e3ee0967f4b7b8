"""JUnit XML, which every continuous-integration service shows."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from ckptools.report.escape import escape
from ckptools.report.numbers import plain_text
from ckptools.report.registry import media
from ckptools.report.wording import word
from ckptools.types.blocks import Result
from ckptools.types.finding import SEVERITIES, Finding


@media.register("junit")
def render(result: Result, *, color: bool = False, width: int = 100, lang: str = "en") -> str:
    """Return one test case per finding, skipped rule and crashed rule.

    A finding at or above ``--fail-on`` is a failure, a lesser one a passed case with its text; a
    page without findings holds one passed case, for an empty suite would read as "nothing ran".
    """
    document = result.document()
    cases = [_finding(one, document.get("fail_on", "error"), lang) for one in result.findings]
    cases += [_case(rule, "skipped", rule["reason"]) for rule in document["skipped"]]
    cases += [_case(rule, "error", rule["error"]) for rule in document["crashed"]]
    if not result.findings:
        cases.append(ET.Element("testcase", classname="ckptools", name="no findings"))
    for case in cases:
        case.set("file", escape(str(document.get("path") or "")))
    return _suite(document, cases)


def _suite(document: dict[str, Any], cases: list[ET.Element]) -> str:
    """Return the XML of one suite with its counts."""
    suite = ET.Element(
        "testsuite",
        name=escape(f"{document.get('schema', 'ckptools')} {document.get('path') or ''}".strip()),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
    )
    suite.extend(cases)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _finding(finding: Finding, fail_on: str, lang: str) -> ET.Element:
    """Return the case of one finding."""
    case = ET.Element(
        "testcase",
        classname=f"{finding.code} {finding.name}",
        name=escape(finding.target),
    )
    lines = [finding.message]
    lines += [f"{key}: {plain_text(value)}" for key, value in finding.evidence.items()]
    if finding.limit is not None:
        lines.append(f"{word('limit', lang)}: {plain_text(finding.limit)}")
    if finding.advice:
        lines.append(f"{word('next', lang)}: {finding.advice}")
    failed = fail_on in SEVERITIES and SEVERITIES.index(finding.severity) >= SEVERITIES.index(
        fail_on
    )
    kind = f"{word(finding.severity, lang)} ({word(finding.confidence, lang)})"
    part = ET.SubElement(case, "failure" if failed else "system-out")
    if failed:
        part.set("type", kind)
        part.set("message", escape(finding.message))
    else:
        lines.insert(0, kind)
    part.text = "\n".join(escape(line) for line in lines)
    return case


def _case(rule: dict[str, Any], outcome: str, text: str) -> ET.Element:
    """Return the case of a rule that did not run to its end."""
    case = ET.Element("testcase", classname=f"{rule['code']} {rule['name']}", name=outcome)
    ET.SubElement(case, outcome, message=escape(text))
    return case
