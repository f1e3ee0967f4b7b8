"""A result in another language: sentences change, what identifies something does not."""

from __future__ import annotations

import json

import pytest

from ckptools.report import media, render
from ckptools.report.fit import display_width
from ckptools.report.spoken import Spoken
from ckptools.rules.registry import found
from ckptools.types.blocks import Chart, Column, Facts, FindingList, Heading, Paragraph, Table
from ckptools.types.finding import Finding
from ckptools.types.wording import count, say
from tests.builders.results import HandMade

FINDING = Finding(
    "LOG106",
    "layer-outlier",
    "warning",
    "hint",
    say("{term} of layer {number}", term="dir", number=0),
    say(
        "{value:g} against {low:g} to {high:g} on the other layers{why}",
        value=0.1,
        low=15.0,
        high=18.5,
        why="",
    ),
    {"value": 0.1, "why": say("the rest was trained")},
    10.0,
    "ckptools timeline .",
)


def result() -> HandMade:
    """Return a page with every kind of block."""
    rows = ({"name": "decoder", "fits": True, "what": [say("scheduler"), "x"]},)
    columns = (
        Column("name", say("module"), "name"),
        Column("fits", say("it fits")),
        Column("what", say("beside")),
    )
    return HandMade(
        [
            Heading(say("Verdict"), 1),
            Paragraph(say("one checkpoint is no series")),
            Facts(((say("size"), 2048), (say("tensors"), count(3, "tensor"))), {"size": "bytes"}),
            FindingList((FINDING,)),
            Table(columns, rows, say("Modules"), hidden=2),
            Chart(say("norm"), (), caption=say("none")),
        ],
        findings=(FINDING,),
    )


def test_a_page_speaks_chinese_in_every_block() -> None:
    page = render(result(), "table", lang="zh")
    for text in (
        "裁决",
        "只有一个检查点，构不成序列",
        "大小  2 KiB",
        "张量  3 个张量",
        "警告     LOG106 layer-outlier 离群的层 (迹象)  第 0 层的 dir",
        "0.1，而其他层为 15 至 18.5",
        "value 0.1 · why 其余部分已训练过 · 界限 10",
        "下一步  ckptools timeline .",
        "decoder  是        [调度器, x]",
        "…… 另有 2 行",
        "范数: 无",
    ):
        assert text in page


def test_columns_stay_aligned() -> None:
    lines = render(result(), "table", lang="zh").splitlines()
    head = next(one for one in lines if one.startswith("模块  "))
    rule = lines[lines.index(head) + 1]
    starts = [index for index, char in enumerate(rule) if char == "─" and rule[index - 1] != "─"]
    places = [display_width(head[: head.index(title)]) for title in ("可以加载", "附带")]
    assert places == starts


def test_data_keeps_its_codes_and_targets() -> None:
    (row,) = Spoken(HandMade(findings=(FINDING,), lines=[FINDING.document()]), "zh").rows()
    assert row["code"] == "LOG106"
    assert row["name"] == "layer-outlier"
    assert row["target"] == "dir of layer 0"
    assert row["message"] == "0.1，而其他层为 15 至 18.5"
    assert row["evidence"] == {"value": 0.1, "why": "其余部分已训练过"}


@pytest.mark.parametrize("medium", media.names())
def test_every_medium_takes_a_language(medium: str) -> None:
    assert isinstance(render(result(), medium, lang="zh"), str)


def test_english_is_not_touched() -> None:
    assert render(result(), "table") == render(result(), "table", lang="en")
    assert "dir of layer 0" in render(result(), "table")


def test_a_finding_of_a_rule_keeps_its_sentence() -> None:
    made = found("x", say("{nan:,} NaN", nan=3))
    assert Spoken(HandMade(findings=(made,)), "zh").findings[0].message == "3 个 NaN"


def test_json_is_the_same_document() -> None:
    english = json.loads(render(result(), "json"))
    chinese = json.loads(render(result(), "json", lang="zh"))
    assert english.keys() == chinese.keys()
