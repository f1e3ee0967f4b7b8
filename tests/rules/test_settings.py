from __future__ import annotations

from pathlib import Path

import pytest

from ckptools.errors import SettingsError
from ckptools.layouts.frameworks.declared import OwnLayout
from ckptools.rules.settings import Settings, find, read


def write(folder: Path, text: str, name: str = "ckptools.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


WHOLE = """
select = ["NUM", "FIL101"]
ignore = ["subnormal-share"]
baseline = ["NUM101 head.bias"]

[limits]
NUM108 = 8
norm-outlier = 9.5

[roles]
"bev.*" = "attention"

[layouts.agents]
weights = ["agent.net"]
optimizers = ["agent.adam"]
"""


def test_reads_everything(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    assert read(path) == Settings(
        select=("NUM", "FIL101"),
        ignore=("subnormal-share",),
        baseline=("NUM101 head.bias",),
        limits={"NUM108": 8.0, "SPR101": 9.5},
        roles={"bev.*": "attention"},
        layouts=(OwnLayout("agents", (("agent", "net"),), (("agent", "adam"),)),),
        path=path,
    )


def test_a_table_in_pyproject(tmp_path: Path) -> None:
    path = write(tmp_path, '[tool.ckptools]\nignore = ["KEY101"]\n', "pyproject.toml")
    assert find(tmp_path) == Settings(ignore=("KEY101",), path=path)


def test_own_file_comes_before_pyproject(tmp_path: Path) -> None:
    write(tmp_path, '[tool.ckptools]\nignore = ["KEY101"]\n', "pyproject.toml")
    path = write(tmp_path, 'ignore = ["FIL"]\n')
    assert find(tmp_path).path == path


def test_the_nearest_parent_counts(tmp_path: Path) -> None:
    path = write(tmp_path, 'ignore = ["FIL"]\n')
    inner = tmp_path / "runs" / "a"
    inner.mkdir(parents=True)
    write(inner, "[tool.other]\nx = 1\n", "pyproject.toml")
    assert find(inner).path == path


def test_defaults_without_a_file(tmp_path: Path) -> None:
    write(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml")
    settings = find(tmp_path)
    assert settings.select == settings.ignore == settings.baseline == ()


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    assert find(tmp_path) == Settings(path=path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('selct = ["NUM"]', "did you mean select"),
        ("zzz = 1", "known: select, ignore, baseline, limits"),
        ('select = "NUM"', "select is a list of strings"),
        ("ignore = [1]", "ignore is a list of strings"),
        ('select = ["NUN101"]', "did you mean"),
        ('baseline = ["NUM101"]', "names one rule and its target"),
        ("limits = 3", "limits is a table"),
        ("[limits]\nNUM101 = 3", "has no limit to set"),
        ("[limits]\nNUM = 3", "belongs to one rule"),
        ("[limits]\nNUM108 = 'x'", "is a number"),
        ("[limits]\nNUM108 = true", "is a number"),
        ("[limits]\nNUM999 = 1", "no rule is called"),
        ("roles = 3", "roles is a table"),
        ('[roles]\nx = "atention"', "'atention' is no role, for 'x'"),
        ("[roles]\nx = 1", "1 is no role"),
        ("layouts = 3", "a table for each layout"),
        ("[layouts.x]\nwheights = []", "unknown setting 'wheights'"),
        ("[layouts.x]\noptimizers = ['a']", "does not say where its weights are"),
        ("select = [", "not valid TOML"),
    ],
)
def test_every_fault_names_the_file(tmp_path: Path, text: str, complaint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError, match=complaint) as caught:
        read(path)
    assert caught.value.where == str(path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "ckptools.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not valid TOML"):
        read(path)


def test_a_named_file_must_be_there_and_be_ours(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such configuration file"):
        read(tmp_path / "ckptools.toml")
    with pytest.raises(SettingsError, match=r"no \[tool.ckptools\] table"):
        read(write(tmp_path, "[project]\n", "pyproject.toml"))


def test_a_table_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="table of settings"):
        read(write(tmp_path, "[tool]\nckptools = 3\n", "pyproject.toml"))
