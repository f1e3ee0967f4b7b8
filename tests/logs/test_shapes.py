"""Blocks of text: their numbers, their shapes, and where the lines are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.logs import shapes
from ckptools.logs.shapes import Block, blocks, numbers

#: the definition of a number, slowly: chains of points are whole numbers
_CHAIN = re.compile(r"(?<![A-Za-z0-9_.])\d+(?:\.\d+)*(?:[eE][-+]?\d+)?|(?<=\.)\d+(?:[eE][-+]?\d+)?")


def block(text: str) -> Block:
    return Block(1, b"\n\n" + text.encode() + b"\n\n\n")


def found(text: str) -> list[tuple[str, float]]:
    made = block(text).numbers
    printed = [made.text[a:b].decode() for a, b in zip(made.start, made.end, strict=True)]
    return list(zip(printed, made.values(np.arange(len(made.start))).tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss: 0.5, lr=1e-05 x -3 y=-3.25e+2", ["0.5", "1e-05", "-3", "-3.25e+2"]),
        ("d0.loss_1: 7 v1.2 a3f9 one2many", ["7"]),
        ("2026-02-07 17:24:05,123", ["2026", "02", "07", "17", "24", "05", "123"]),
        ("1.2.3 and .5 and 5. and ...", ["1", "2", "3", "5", "5"]),
        ("60 -80 60-80 [+4]", ["60", "-80", "60", "80", "+4"]),
        ("第5轮 损失：-0.5 [3/10] 35%", ["5", "-0.5", "3", "10", "35"]),
        ("1e5e6 2E3 4x 1e-", ["1e5", "2E3", "4", "1"]),
        ("", []),
    ],
)
def test_what_a_number_is(text: str, expected: list[str]) -> None:
    assert [printed for printed, _ in found(text)] == expected


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20), st.data())
def test_every_number_is_the_nearest_double(values: list[float], data: st.DataObject) -> None:
    formats = data.draw(
        st.lists(
            st.sampled_from(["{!r}", "{:.4f}", "{:.3e}", "{:g}", "{:.0f}", "{:.17g}", "{:+.2f}"]),
            min_size=len(values),
            max_size=len(values),
        )
    )
    texts = [form.format(value) for form, value in zip(formats, values, strict=True)]
    assert found(" ".join(f"x: {text}" for text in texts)) == [(t, float(t)) for t in texts]


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="0123456789.eE+- \nab_:=轮,", max_size=60))
def test_any_text_gives_numbers_that_are_there(text: str) -> None:
    for printed, value in found(text):
        assert float(printed) == value
        assert printed in text
    made = block(text)
    assert made.shapes() == [b"".join(_shape(made, index)) for index in range(len(made))]
    assert [made.bytes_of(i).decode() for i in range(len(made))] == text.split("\n")


def _shape(made: Block, index: int) -> list[bytes]:
    line, start, pieces, at = made.bytes_of(index), int(made.starts[index]), [], 0
    for number in range(made.first[index], made.first[index + 1]):
        a, b = int(made.numbers.start[number]) - start, int(made.numbers.end[number]) - start
        pieces += [line[at:a], b"\0"]
        at = b
    return [*pieces, line[at:]]


def test_spans_are_in_characters() -> None:
    made = block("轮次 [3/10], 训练损失: 0.1234\nx 5")
    line = made.bytes_of(0).decode()
    assert [line[a:b] for a, b in made.spans_of(0)] == ["3", "10", "0.1234"]
    assert made.spans_of(1) == [(2, 3)]


def test_powers_of_the_last_digit() -> None:
    made = numbers(b"\n\n3.14 2 1.5e-3 7e2\n\n")
    assert made.last_digit(np.arange(4)).tolist() == [-2, 0, -4, 2]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 64])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blocks_hold_whole_lines(
    size: int, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "BLOCK", size)
    made = ["a 1", "", "轮 2.5", "b" * 20, "3"]
    path = tmp_path / "x"
    path.write_bytes(end.join(made).encode())
    got = [b.bytes_of(i).decode() for b in blocks(path) for i in range(len(b))]
    assert [one for one in got if one] == [one for one in made if one]
    if end == "\n":
        assert got == made


def test_a_line_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "BLOCK", 64)
    monkeypatch.setattr(shapes, "LONGEST_LINE", 256)
    path = tmp_path / "x"
    path.write_bytes(b"y" * 1000)
    got = [b.bytes_of(i) for b in blocks(path) for i in range(len(b))]
    assert b"".join(got) == b"y" * 1000
    assert max(map(len, got)) <= 256 + 64
