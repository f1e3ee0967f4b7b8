from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from ckptools.report import media, render
from ckptools.report.findings_only import FindingsOnly
from ckptools.report.fit import display_width
from ckptools.types.blocks import Column, FindingList, Heading, Paragraph, Table
from tests.builders.results import NASTY, HandMade, finding, nasty_result


@pytest.mark.parametrize("medium", media.names())
def test_nothing_invisible_from_a_file_reaches_any_medium(medium: str) -> None:
    text = render(nasty_result(), medium)
    assert all(char.isprintable() or char == "\n" for char in text)
    text.encode("utf-8")


@pytest.mark.parametrize("medium", media.names())
def test_an_empty_result_can_be_shown(medium: str) -> None:
    assert isinstance(render(HandMade(), medium), str)


@pytest.mark.parametrize("medium", media.names())
def test_only_a_terminal_page_with_colours_has_escape_sequences(medium: str) -> None:
    result = HandMade([Heading("x", 1), FindingList((finding(),))], findings=(finding(),))
    assert "\x1b" not in render(result, medium)
    assert ("\x1b[31m" in render(result, medium, color=True)) == (medium == "table")


def test_an_unknown_medium_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match="json"):
        render(HandMade(), "pdf")


class TestTable:
    def test_no_table_is_wider_than_the_page(self) -> None:
        names = [
            f"pts_bbox_head.transformer.decoder.layers.{i}.attentions.1.层异常" for i in range(9)
        ]
        columns = (
            Column("name", "module", "name"),
            Column("n", "elements", "integer"),
            Column("rms", "rms", "number"),
            Column("why", "why"),
        )
        rows = tuple({"name": one, "n": 10**9, "rms": 0.1, "why": "words " * 20} for one in names)
        for width in (60, 80, 100):
            text = render(
                HandMade([Heading("Modules"), Table(columns, rows)]), "table", width=width
            )
            assert max(map(display_width, text.splitlines())) <= width

    def test_cjk_columns_align(self) -> None:
        columns = (Column("name", "名", "name"), Column("n", "n", "integer"))
        rows = ({"name": "层异常", "n": 1}, {"name": "weight", "n": 22})
        lines = render(HandMade([Table(columns, rows)]), "table").splitlines()
        assert len({display_width(line) for line in lines}) == 1

    def test_what_is_left_out_is_said(self) -> None:
        columns = (Column("name", "module", "name"), Column("n", "a heading too long", "integer"))
        page = render(
            HandMade([Table(columns, ({"name": "x", "n": 1},), hidden=1234)]), "table", width=20
        )
        assert "… 1,234 more" in page
        assert "no room for: a heading too long" in page

    def test_findings_come_most_severe_first_with_all_that_they_rest_on(self) -> None:
        found = (finding("SPR201", "note"), finding("NUM101", "error"))
        page = render(HandMade([FindingList(found)]), "table")
        assert page.index("NUM101") < page.index("SPR201")
        for part in (
            "(proof)",
            "head.weight",
            "1 of 16,384",
            "nan 1",
            "limit 0.5",
            "ckptools repair",
        ):
            assert part in page

    def test_many_findings_of_one_rule_are_counted_not_repeated(self) -> None:
        found = tuple(finding(target=f"layers.{i}.weight") for i in range(50))
        page = render(HandMade([FindingList(found)]), "table")
        assert page.count("1 of 16,384") == 3
        assert "and 47 more of NUM101: layers.3.weight" in page

    def test_a_paragraph_keeps_its_line_ends_and_indents(self) -> None:
        text = "first\n  second " + "word " * 40
        lines = render(HandMade([Paragraph(text)]), "table", width=60).splitlines()
        assert lines[0] == "first"
        assert all(line.startswith("  ") for line in lines[1:])

    def test_the_command_to_type_is_never_broken(self) -> None:
        advice = "ckptools repair " + "x" * 200
        one = finding()
        long = type(one)(one.code, one.name, one.severity, one.confidence, "t", "m", advice=advice)
        assert advice in render(HandMade([FindingList((long,))]), "table")


class TestJson:
    def test_the_document_is_strict_json_with_nonfinite_numbers_as_text(self) -> None:
        text = render(nasty_result(), "json")
        document = json.loads(text, parse_constant=lambda name: pytest.fail(f"bare {name}"))
        assert document["value"] == "nan"
        assert document["path"] == NASTY
        assert document["findings"][0]["evidence"] == {"nan": 1, "share": "nan"}

    def test_every_document_says_which_version_wrote_it(self) -> None:
        document = json.loads(render(HandMade(), "json"))
        assert list(document)[:2] == ["schema", "tool"]
        assert document["tool"]["version"]

    def test_values_that_json_does_not_have(self) -> None:
        np = pytest.importorskip("numpy")
        deep: list[object] = []
        for _ in range(5000):
            deep = [deep]
        more = {
            "scalar": np.float32(0.5),
            "array": np.array([1, 2]),
            "inf": np.float64("inf"),
            "bytes": b"\x00",
            "complex": 1j,
            "huge": 1 << 100_000,
            "deep": deep,
            "keys": {1: "a", None: "b", (2, 3): "c"},
        }
        document = json.loads(render(HandMade(more=more), "json"))
        assert document["scalar"] == 0.5
        assert document["array"] == [1, 2]
        assert document["inf"] == "inf"
        assert document["huge"].startswith("0x1")
        assert set(document["keys"].values()) == {"a", "b", "c"}


def test_jsonl_is_one_object_per_row() -> None:
    lines = render(nasty_result(), "jsonl").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": NASTY, "value": "-inf", "shape": [2, 3]},
        {"other": None},
    ]


def test_csv_has_every_column_once_and_full_precision() -> None:
    result = HandMade(lines=[{"name": "a,b", "x": 0.1 + 0.2}, {"name": "c", "y": [1, 2]}])
    rows = list(csv.DictReader(io.StringIO(render(result, "csv"))))
    assert rows == [
        {"name": "a,b", "x": "0.30000000000000004", "y": ""},
        {"name": "c", "x": "", "y": "[1, 2]"},
    ]


class TestMarkdown:
    def test_tables_are_github_tables(self) -> None:
        columns = (Column("name", "module", "name"), Column("n", "n", "integer"))
        text = render(HandMade([Table(columns, ({"name": "a|b", "n": 3},))]), "markdown")
        assert re.search(r"^\| *module *\| *n *\|$", text, re.MULTILINE)
        assert "`a\\|b`" in text

    def test_names_cannot_become_markup(self) -> None:
        text = render(nasty_result(), "markdown")
        outside = re.sub(r"(`+).*?\1", "", text.replace("\\`", ""))
        assert not re.search(r"(?<!\\)<b>", outside)
        assert text.count("\n# ") == 0  # the only level-1 heading is the first line


class TestJunit:
    def test_counts_and_outcomes(self) -> None:
        root = ET.fromstring(render(nasty_result(), "junit"))
        suite = root.find("testsuite")
        assert suite is not None
        assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
            "tests": "4",
            "failures": "1",
            "errors": "1",
            "skipped": "1",
        }

    @pytest.mark.parametrize(
        ("fail_on", "failures"), [("error", "1"), ("warning", "2"), ("never", "0")]
    )
    def test_failures_follow_fail_on(self, fail_on: str, failures: str) -> None:
        found = (finding(), finding("SPR201", "warning"), finding("RUN101", "note"))
        result = HandMade(findings=found, more={"fail_on": fail_on})
        suite = ET.fromstring(render(result, "junit")).find("testsuite")
        assert suite is not None
        assert suite.get("failures") == failures

    def test_a_clean_file_is_one_passed_case(self) -> None:
        suite = ET.fromstring(render(HandMade(), "junit")).find("testsuite")
        assert suite is not None
        assert suite.get("tests") == "1"
        assert suite.get("failures") == "0"


def test_findings_only_has_a_row_per_finding_and_an_empty_page_without() -> None:
    found = (finding(), finding("SPR201", "note"))
    only = FindingsOnly(HandMade([Heading("x", 1)], findings=found, exit_code=1))
    assert [row["code"] for row in only.rows()] == ["NUM101", "SPR201"]
    assert render(only, "table").startswith("error")
    assert only.exit_code == 1
    assert render(FindingsOnly(HandMade([Heading("x", 1)])), "table") == ""


def test_showing_imports_no_numpy() -> None:
    code = (
        "import sys; from ckptools.report import media; media.names();"
        "print([m for m in ('numpy', 'torch', 'scipy', 'numba', 'plotly') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
