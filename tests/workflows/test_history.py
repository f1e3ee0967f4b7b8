from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckptools.cli import main as cli
from ckptools.workflows.inspect import inspect
from tests.builders.pairs import FC1, flip_bit, run, zero_second_moment
from tests.builders.small_run import planted


def test_one_file_shows_impossible_moments(tmp_path: Path) -> None:
    sick = planted(run()[5], tmp_path / "sick.pth", zero_second_moment)
    codes = {finding.code for finding in inspect(sick).findings}
    assert "OPT101" in codes
    assert "OPT101" not in {finding.code for finding in inspect(run()[5]).findings}


def test_against_the_nearest_earlier_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sick = planted(run()[5], tmp_path / "sick.pth", flip_bit(26))
    earlier = [str(run()[2]), str(run()[4])]
    options = [word for path in earlier for word in ("--against", path)]
    assert cli.run(["inspect", str(sick), *options, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (proof,) = [one for one in found["findings"] if one["code"] == "CHG101"]
    assert (proof["target"], proof["confidence"]) == (FC1, "proof")
    assert earlier[1] in proof["advice"]


def test_a_healthy_file_against_its_past() -> None:
    found = inspect(run()[5], against=[run()[3], run()[4]])
    assert [one for one in found.findings if one.confidence != "hint"] == []
