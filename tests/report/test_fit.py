from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from ckptools.report.fit import display_width, narrow, shorten, shorten_all, wrap

words = st.text("ab.层异_1 ", max_size=60)


def test_cjk_takes_two_columns() -> None:
    assert display_width("层异常") == 6
    assert display_width("abc") == 3


@given(words, st.integers(4, 40))
def test_a_shortened_name_fits_and_keeps_both_ends(name: str, width: int) -> None:
    cut = shorten(name, width)
    assert display_width(cut) <= width
    if cut != name:
        head, tail = cut.split("…")
        assert name.startswith(head)
        assert name.endswith(tail)


def test_names_that_differ_anywhere_stay_distinct() -> None:
    stem = "model.transformer.decoder.layers"
    for names in (
        [f"{stem}.{block}.self_attention.out_projection.weight" for block in range(20)],
        [f"{set_}.{stem}.0.self_attention.out_projection.weight" for set_ in "ab"],
        [f"{stem}.0.self_attention.out_projection.{kind}" for kind in ("weight", "bias")],
    ):
        assert len(set(shorten_all(names, 30))) == len(names)


@given(words, st.integers(2, 40))
def test_wrapping_loses_nothing_and_fits(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(display_width(line) <= width for line in lines)


def test_chinese_breaks_between_characters_and_marks_stay_where_they_belong() -> None:
    text = "梯度范数每 5 步检查一次，每次都告警（decoder.layers.0）。"
    assert wrap(text, 24) == ["梯度范数每 5 步检查一", "次，每次都告警", "（decoder.layers.0）。"]
    assert wrap("总损失，", 7) == ["总损", "失，"]


@given(
    st.lists(st.sampled_from(["梯", "度。", "（5），", "ab ", " 7", "…", "ab。"])).map("".join),
    st.integers(16, 40),
)
def test_no_line_begins_with_a_closing_mark(text: str, width: int) -> None:
    text = re.sub("[ ，。…]*…", "…", text)
    for line in wrap(text, width)[1:]:
        assert not line.startswith(("，", "。", "）", "…"))


@given(
    st.lists(st.tuples(words, words, words), min_size=1, max_size=4),
    st.integers(20, 80),
)
def test_a_narrowed_table_fits_or_is_one_column(rows: list[tuple[str, ...]], width: int) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)]
    kept, dropped = narrow(columns, ["cut", "keep", "wrap"], width)
    assert len(kept) + dropped == 3
    total = sum(
        max(display_width(line) for cell in column for line in cell.split("\n")) for column in kept
    )
    assert total + 2 * (len(kept) - 1) <= width or len(kept) == 1


def test_names_give_way_before_numbers_are_dropped() -> None:
    columns = [["name", "x" * 90], ["rms", "0.1234"], ["max", "1.234"]]
    kept, dropped = narrow(columns, ["cut", "keep", "keep"], 60)
    assert dropped == 0
    assert display_width(kept[0][1]) == 60 - 6 - 5 - 4
