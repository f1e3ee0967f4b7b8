"""What the README promises is there."""

from __future__ import annotations

import re
from pathlib import Path

import click

from ckptools.cli.main import Commands

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_two_commands_stand_in_the_readme() -> None:
    commands = re.findall(r"^pip install .*$", README, flags=re.MULTILINE)
    assert commands == [
        "pip install -c constraints.txt . && ckptools demo",
        "pip install -c constraints.txt -e '.[test]' && python -m pytest -q",
    ]


def test_a_real_finding_is_on_the_first_screen() -> None:
    first_screen = "\n".join(README.splitlines()[:40])
    assert re.search(r"\b(FIL|KEY|NUM|SPR|OPT|RUN|CHG)\d{3}\b", first_screen)


def test_every_command_named_in_the_readme_exists() -> None:
    commands = Commands().list_commands(click.Context(click.Command("ckptools")))
    named = re.findall(r"^ckptools ([a-z-]+)", README, flags=re.MULTILINE)
    assert named
    assert set(named) <= set(commands)
