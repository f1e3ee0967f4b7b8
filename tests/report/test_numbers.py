from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.report.numbers import (
    byte_count,
    cell,
    count,
    number,
    percent,
    plain_text,
    sparkline,
)


@given(st.floats(-1e308, 1e308))
def test_four_significant_digits(value: float) -> None:
    assert math.isclose(
        float(number(value).replace(",", "")), value, rel_tol=5.01e-4, abs_tol=5e-324 * 1e4
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12.345678, "12.35"),
        (1.2346e-7, "1.235e-7"),
        (1.2345e12, "1.234e+12"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (16384, "16,384"),
        (996401.0, "996,401"),
        (4.5e5 + 0.5, "4.5e+5"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_counts_set_thousands_apart_and_huge_ones_give_their_size() -> None:
    assert count(510_000) == "510,000"
    assert count(1 << 100_000) == "<integer of 100001 bits>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (2_163_487, "2.06 MiB"),
        (8 << 30, "8 GiB"),
    ],
)
def test_bytes(value: int, text: str) -> None:
    assert byte_count(value) == text


def test_percent() -> None:
    assert percent(0.1234) == "12.3 %"
    assert percent(0.00001234) == "0.00123 %"


@given(st.lists(st.none() | st.floats()))
def test_a_sparkline_has_one_bar_per_value(values: list[float | None]) -> None:
    assert len(sparkline(values)) == len(values)


def test_a_sparkline_rises_with_its_values_and_shows_gaps() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, None, float("nan"), 3.0]) == "▁··█"
    assert sparkline([2.0, 2.0]) == "▄▄"
    assert sparkline([1.7e308, -1.7e308]) == "█▁"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_value_is_one_visible_line(value: object) -> None:
    assert plain_text(value).isprintable()


def test_long_sequences_end_in_an_ellipsis() -> None:
    assert plain_text(list(range(20))) == "[0, 1, 2, 3, 4, 5, 6, 7, …]"
    assert plain_text({"lr": 1e-4}) == "{lr 0.0001}"


def test_cells() -> None:
    assert cell(None, "integer") == "–"
    assert cell("nan", "number") == "nan"
    assert cell(True, "integer") == "yes"
    assert cell([1.0, 2.0], "sparkline") == "▁█"


@pytest.mark.parametrize("style", ["integer", "number", "bytes", "percent", "sparkline"])
@pytest.mark.parametrize(
    "value", [[None, 0.001], {"a": 1}, "text", None, True, (1, "b"), 1 << 2000]
)
def test_a_cell_is_printed_whatever_a_file_holds(value: object, style: str) -> None:
    """Adafactor's eps is a pair with None; anything may stand in a file's settings."""
    assert "\n" not in cell(value, style)
