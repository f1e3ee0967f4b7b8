from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from safetensors.numpy import save_file

from ckptools import errors
from ckptools.cli import main as cli
from ckptools.cli.refusals import MEANINGS

COMMANDS = sorted(cli._help_lines())


def run_as_user(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ckptools", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


class Point:
    """An entry point of another package, which gives a command."""

    name = "probe"

    def __init__(self, command: click.Command) -> None:
        self.command = command

    def load(self) -> click.Command:
        return self.command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Install a command ``probe`` of another package."""

    def install(body: Callable[..., Any]) -> None:
        probe = click.command("probe", params=[click.Option(["--format"])])(body)
        monkeypatch.setattr(cli, "announced", lambda _: (Point(probe),))

    return install


def test_the_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, line in cli._help_lines().items():
        assert f"{name} {line}" in shown


def test_the_help_imports_no_command() -> None:
    code = (
        "import sys; from ckptools.cli.main import run; run(['--help']);"
        "print([m for m in sys.modules if m.startswith('ckptools.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stderr)) <= {
        "ckptools.cli",
        "ckptools.cli.main",
        "ckptools.cli.streams",
        "ckptools.errors",
        "ckptools.registry",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: ckptools {name}")
    assert "--format" in shown
    assert all(len(line) <= 100 for line in shown.splitlines())
    command = cli.commands.get_command(click.Context(cli.commands), name)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_line_that_is_a_sentence(name: str) -> None:
    line = cli._help_lines()[name]
    assert line[0].isupper()
    assert line.endswith(".")


def test_no_arguments_show_the_help_and_are_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Commands:" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspekt"], "did you mean inspect?"),
        (["xyzzy"], "commands: "),
        (["--nonsense"], "--nonsense"),
        (["inspect", "--fail-on", "sometimes"], "--fail-on"),
        (["inspect", "--format", "pdf"], "none of csv, json"),
        (["inspect", "a", "b"], "ckptools inspect --help"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("ckptools: UsageError: ")
    assert said in err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ckptools, version ")


def test_a_command_gives_its_exit_code(command: Callable[..., None]) -> None:
    command(lambda format: 3)
    assert cli.run(["probe"]) == 3


def leaves(tree: type[Exception]) -> list[type[Exception]]:
    """Return the public family; readers that are imported already have finer ones of their own."""
    below = [one for one in tree.__subclasses__() if one.__module__ == errors.__name__]
    return [tree, *(leaf for one in below for leaf in leaves(one))]


@pytest.mark.parametrize("error", leaves(errors.CkptoolsError))
def test_every_error_of_ours_is_one_line_and_exit_2(
    error: type[errors.CkptoolsError],
    command: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(format: str | None) -> None:
        raise error("is\x1b[31m bad", where="a\u202e.pth", next="do this")

    command(fail)
    assert cli.run(["probe"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"ckptools: {error.__name__}: a\\u202e.pth: is\\x1b[31m bad — do this\n"


@pytest.mark.parametrize("medium", ["json", "jsonl"])
@pytest.mark.parametrize("joined", [True, False])
def test_with_json_the_error_is_an_object_on_stdout(
    medium: str, joined: bool, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(format: str | None) -> None:
        raise errors.CorruptFile("is cut off", where="a.pth", next="look at the disk")

    command(fail)
    form = [f"--format={medium}"] if joined else ["--format", medium]
    assert cli.run(["probe", *form]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document.pop("tool")["version"]
    assert document == {
        "schema": "ckptools.error/1",
        "error": "CorruptFile",
        "message": "is cut off",
        "where": "a.pth",
        "next": "look at the disk",
        "exit_code": 2,
    }


@pytest.mark.parametrize(
    "crash",
    [
        RuntimeError("two\nlines"),
        MemoryError(),
        RecursionError("too deep"),
        AssertionError(),
        KeyError("x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
)
def test_a_bug_is_one_line_and_exit_2(
    crash: Exception,
    command: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(format: str | None) -> None:
        raise crash

    command(fail)
    monkeypatch.delenv("CKPTOOLS_DEBUG", raising=False)
    assert cli.run(["probe"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"ckptools: {type(crash).__name__}: ")
    assert "CKPTOOLS_DEBUG=1" in err
    monkeypatch.setenv("CKPTOOLS_DEBUG", "1")
    assert cli.run(["probe"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_os_error_names_its_file(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command(lambda format: (tmp_path / "missing").open())
    assert cli.run(["probe"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ckptools: FileNotFoundError: ")
    assert "missing: No such file or directory" in err


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, click.Abort])
def test_ctrl_c_is_no_finding(
    interruption: type[BaseException],
    command: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(format: str | None) -> None:
        raise interruption

    command(fail)
    assert cli.run(["probe"]) == 130
    assert capsys.readouterr().err.endswith("ckptools: interrupted\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_completion_script(shell: str) -> None:
    entry = "from ckptools.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", entry],
        capture_output=True,
        text=True,
        env=os.environ | {"_CKPTOOLS_COMPLETE": f"{shell}_source"},
    )
    if shell == "bash" and "Bash version" in done.stderr:
        pytest.skip("click wants bash 4.4")
    assert done.returncode == 0
    assert "_CKPTOOLS_COMPLETE" in done.stdout


LATER_LOG = {f"LOG20{number}" for number in range(1, 7)}


@pytest.mark.parametrize(
    ("words", "number", "offered"),
    [
        ("ckptools ex", 1, {"explain"}),
        ("ckptools inspect --fail-on w", 3, {"warning"}),
        ("ckptools inspect --format js", 3, {"json", "jsonl"}),
        ("ckptools explain fil10", 2, {f"FIL10{number}" for number in range(1, 10)}),
        ("ckptools inspect --select KEY,num10", 3, {f"KEY,NUM10{n}" for n in range(1, 10)}),
        ("ckptools diff --ignore lo", 3, {"LOG"} | {f"LOG10{n}" for n in range(1, 10)} | LATER_LOG),
    ],
)
def test_completion_offers_names(words: str, number: int, offered: set[str]) -> None:
    done = run_as_user(_CKPTOOLS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number))
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == offered


def test_a_terminal_with_another_charset_gets_escapes_and_no_crash() -> None:
    done = run_as_user("--nonsense\N{SNOWMAN}", PYTHONIOENCODING="latin-1")
    assert done.returncode == 2
    assert "\\u2603" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
@pytest.mark.parametrize("medium", ["table", "json", "csv"])
@pytest.mark.parametrize("name", ["m.safetensors", "missing.pth"])
def test_a_full_disk_behind_stdout_is_told(medium: str, name: str, tmp_path: Path) -> None:
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "m.safetensors")
    command = ["inspect", str(tmp_path / name), "--format", medium]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ckptools", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert ("stdout: cannot be written" in done.stderr) == (name == "m.safetensors")


def test_a_page_is_drawn_with_what_the_charset_has(tmp_path: Path) -> None:
    weights = {f"layers.{block}.weight": np.eye(4, dtype=np.float32) + block for block in (0, 1)}
    save_file(weights, tmp_path / "m.safetensors")
    inspect = ["inspect", str(tmp_path / "m.safetensors"), "--lang", "en"]
    plain = run_as_user(*inspect, PYTHONIOENCODING="ascii").stdout
    drawn = run_as_user(*inspect, PYTHONIOENCODING="utf-8").stdout
    assert "-- File ----" in plain
    assert "-------  --------  -----" in plain
    assert "\\" not in plain
    assert [len(line) for line in plain.splitlines()] == [len(line) for line in drawn.splitlines()]


@pytest.mark.parametrize(
    "arguments",
    [["--lang", "zh"], ["--lang=zh"], []],
)
def test_errors_are_said_in_the_language_asked_for(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CKPTOOLS_LANG", "en" if arguments else "zh_CN.UTF-8")
    path = tmp_path / "x.log"
    path.write_text("nothing in here\n")
    assert cli.run(["log", str(path), *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("ckptools: 未知格式 UnknownFormat: ")
    assert "其中没有找到训练数值" in told
    assert cli.run(["log", str(path), "--lang", "en"]) == 2
    assert "no training values found in it" in capsys.readouterr().err
    assert cli.run(["log", str(path), "--format", "json", *arguments]) == 2
    assert json.loads(capsys.readouterr().out)["message"] == "no training values found in it"


def test_every_error_has_a_meaning() -> None:
    named = {
        name
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, errors.CkptoolsError)
    }
    assert named | {"UsageError"} == set(MEANINGS)
