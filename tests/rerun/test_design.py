from __future__ import annotations

from pathlib import Path

import pytest

from ckptools.errors import SettingsError
from ckptools.rerun.arms import ArmPlan
from ckptools.rerun.design import Design, design, extended, read, spoken

PLANS = """
steps = 200
seeds = [0, 1, 2, 3]

[[arm]]
name = "A"
settings = { aux_weights = 0.1 }

[[arm]]
name = "B"
from = "scratch"
settings = { aux_weights = 0.3, warmup = 2000, clip = 10 }
lr = { lora = 5e-5, qformer_decoder = 1e-4 }

[[arm]]
name = "C: three layers"
blocks = 3

[[arm]]
name = "C: last two"
loss_weights = "last 2"

[[arm]]
name = "operated"
recipe = "recipe.toml"
cpus = 2
gpus = 0.5
"""


def test_a_users_plans_are_read(tmp_path: Path) -> None:
    (tmp_path / "plans.toml").write_text(PLANS)
    found = read(tmp_path / "plans.toml")
    assert (found.steps, found.seeds, found.trials) == (200, (0, 1, 2, 3), 24)
    assert [one.name for one in found.arms] == [
        "as-is", "A", "B", "C: three layers", "C: last two", "operated",
    ]  # fmt: skip
    assert found.arms[1].task_settings == {"aux_weights": 0.1}
    assert found.arms[2] == ArmPlan(
        "B",
        start="scratch",
        settings={"aux_weights": 0.3, "warmup": 2000, "clip": 10},
        lr={"lora": 5e-5, "qformer_decoder": 1e-4},
    )
    assert found.arms[3].task_settings == {"blocks": 3}
    assert found.arms[5].recipe == str(tmp_path / "recipe.toml")
    assert (found.arms[5].processors, found.arms[5].gpus) == (2, 0.5)


def test_an_arm_that_changes_nothing_is_the_reference(tmp_path: Path) -> None:
    found = design({"arm": [{"lr": "x2"}, {"name": "unchanged"}]})
    assert [one.name for one in found.arms] == ["unchanged", "lr=x2"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour = 1", "no setting 'colour'"),
        ("steps = -1", "no number of steps"),
        ("seeds = []", "no list"),
        ("seeds = [1, 1]", "twice"),
        ("arm = 3", "no list of tables"),
        ("[[arm]]\nname = 'a'\ncolour = 1", "arm a: no word 'colour'"),
        ("[[arm]]\nname = 'a'\nlr = 1.0\n[[arm]]\nname = 'a'\nlr = 2.0", "two arms are called 'a'"),
        ("[[arm]]\nblocks = true", "wrong kind: blocks = True"),
        ("[[arm]]\nrestore = [1]", "wrong kind: restore"),
        ("[[arm]]\nfrom = 'earlier'", "declares its optimizer state"),
        ("steps = ", "cannot be read"),
    ],
)
def test_everything_wrong_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "d.toml").write_text(text)
    with pytest.raises(SettingsError, match=complaint) as caught:
        read(tmp_path / "d.toml")
    assert caught.value.where == str(tmp_path / "d.toml")


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(SettingsError, match=r"no setting 'a'.*arm 1.*'b'.*steps = 'many'"):
        design({"a": 1, "steps": "many", "arm": [{"b": 1}]})


def test_words_on_the_command_line() -> None:
    assert spoken("optimizer-reset") == ArmPlan("optimizer-reset", optimizer="reset")
    assert spoken("lr=x0.1").lr == "x0.1"
    assert spoken("lr=1e-4").lr == 1e-4
    both = spoken("restore=decoder.layers.0 sham=true")
    assert (both.restore, both.sham) == (("decoder.layers.0",), True)
    assert spoken("from=scratch settings.warmup=2000 settings.clip=10").settings == {
        "warmup": 2000,
        "clip": 10,
    }
    assert spoken("loss_weights=last_2").loss_weights == "last 2"
    assert spoken("loss_weights=ramp_0.1_0.5").loss_weights == "ramp 0.1 0.5"
    assert spoken("earlier-reset") == ArmPlan("earlier-reset", start="earlier", optimizer="reset")
    with pytest.raises(SettingsError, match="no arm 'faster'"):
        spoken("faster")


def test_words_extend_a_file(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text("steps = 5\n[[arm]]\nname = 'a'\nlr = 1.0")
    found = extended(tmp_path / "d.toml", ["lr=x2"], seeds=2)
    assert [one.name for one in found.arms] == ["as-is", "a", "lr=x2"]
    assert (found.steps, found.seeds) == (5, (0, 1))
    assert extended(None, [], steps=7) == Design(steps=7)
    with pytest.raises(SettingsError, match="two arms are called a"):
        extended(tmp_path / "d.toml", ["name=a lr=x3"])
