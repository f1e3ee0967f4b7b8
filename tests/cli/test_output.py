from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from ckptools.cli.output import Output, write_report
from ckptools.cli.progress import Progress
from ckptools.errors import WouldOverwrite, WriteError
from ckptools.types.blocks import FindingList, Heading
from ckptools.types.wording import say
from tests.builders.results import HandMade, finding


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(output: Output, result: HandMade, patch: pytest.MonkeyPatch) -> str:
    """Return what stands on a terminal."""
    terminal = Terminal()
    with patch.context() as inner:
        inner.setattr("sys.stdout", terminal)
        output.emit(result)
    return terminal.getvalue()


def page() -> HandMade:
    found = (finding(),)
    return HandMade([Heading("the page", 1), FindingList(found)], findings=found, exit_code=1)


def test_data_goes_to_stdout_and_the_exit_code_is_the_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert Output().emit(page()) == 1
    out, err = capsys.readouterr()
    assert out.startswith("the page\n")
    assert err == ""


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in shown(Output(), page(), monkeypatch)
    assert "\x1b[" not in shown(Output(color=False), page(), monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in shown(Output(), page(), monkeypatch)


@pytest.mark.parametrize(("columns", "width"), [(72, 72), (20, 60), (500, 160)])
def test_a_page_follows_the_terminals_width_within_reason(
    columns: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = shown(Output(color=False), HandMade([Heading("x")]), monkeypatch)
    assert len(text.rstrip("\n")) == width


def test_quiet_shows_findings_only_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.say("talk")
    assert output.emit(page()) == 1
    out, err = capsys.readouterr()
    assert out.startswith("error")
    assert "the page" not in out
    assert err == ""
    Output(quiet=True).emit(HandMade([Heading("the page", 1)]))
    assert capsys.readouterr().out == ""


def test_talk_goes_to_stderr_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Output().say("picked \x1b[31m.pth")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "picked \\x1b[31m.pth\n")


def test_a_report_goes_to_a_file_without_colours(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    assert Output("markdown", path).emit(page()) == 1
    assert path.read_text().startswith("# the page\n")
    Output("json", path).emit(page())
    assert path.read_text().startswith("{"), "an earlier report may be replaced"
    assert os.listdir(tmp_path) == ["report.md"]


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04\x00\x00", b"\x80\x02}q\x00.", b"\xff\xfe", b"a\x00b"]
)
def test_a_report_never_replaces_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(content)
    with pytest.raises(WouldOverwrite, match=r"give -o a new name"):
        write_report("x", path)
    assert path.read_bytes() == content


def test_a_text_cut_inside_a_character_is_still_a_text(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text("层" * 40_000, encoding="utf-8")
    write_report("x", path)
    assert path.read_text() == "x"


def test_a_place_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        write_report("x", tmp_path / "missing" / "report.md")


class TestProgress:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [0.0]
        monkeypatch.setattr("ckptools.cli.progress.time.monotonic", lambda: now[0])
        return now

    def test_nothing_is_drawn_in_the_first_second(
        self, clock: list[float], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Progress("reading") as progress:
            progress(1, 10)
            clock[0] = 0.9
            progress(5, 10)
        assert capsys.readouterr().err == ""

    def test_a_bar_is_drawn_after_it_and_wiped_at_the_end(
        self, clock: list[float], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Progress("reading") as progress:
            clock[0] = 1.1
            progress(5, 10)
            progress(10, 10)
            progress(2, 40)
            assert progress._bar is not None
            assert (progress._bar.n, progress._bar.total) == (2, 40), "a second pass starts anew"
        err = capsys.readouterr().err
        assert "reading:  50%" in err
        assert err.endswith("\r")

    def test_off_a_terminal_there_is_no_progress(self) -> None:
        with Output().progress("reading") as progress:
            assert progress is None


class TestLanguage:
    @pytest.fixture(autouse=True)
    def chinese(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CKPTOOLS_LANG", raising=False)
        monkeypatch.delenv("LC_MESSAGES", raising=False)
        monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")

    @pytest.mark.parametrize(
        ("medium", "lang", "spoken"),
        [
            ("table", None, "zh"),
            ("markdown", None, "zh"),
            ("json", None, "en"),
            ("csv", None, "en"),
            ("junit", None, "en"),
            ("table", "en", "en"),
            ("json", "zh", "zh"),
        ],
    )
    def test_pages_follow_the_locale_and_data_only_the_option(
        self, medium: str, lang: str | None, spoken: str
    ) -> None:
        assert Output(medium, lang=lang).spoken() == spoken

    def test_the_page_is_in_that_language(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output().emit(HandMade([Heading(say("Verdict"), 1)]))
        assert capsys.readouterr().out == "裁决\n"

    def test_talk_is_in_that_language(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output().say(say("the newest of {number} here", number=3))
        assert capsys.readouterr().err == "这里 3 个中最新的\n"
