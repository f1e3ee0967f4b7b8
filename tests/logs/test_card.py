"""Run cards: what they may say, and clean errors for what they may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptools.errors import SettingsError
from ckptools.logs.card import Card, Plan, read_card
from ckptools.logs.schedules import Schedule

WHOLE = """
clip = 35
steps_per_epoch = 4689
[weights]
cls = 2
[layers]
before = [0.1, 0.2]
now = [0.5, 0.5]
[[plan]]
name = "A"
layers = [0.1, 0.1]
expected = [60, 80]
[[schedule]]
key = "lr/decoder"
kind = "cosine"
base = 2e-4
warmup = 2000
steps = 60000
[[schedule]]
kind = "step"
base = 1
unit = "epoch"
milestones = [8, 11]
"""


def test_a_whole_card(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(WHOLE)
    assert read_card(path) == Card(
        clip=35.0,
        weights={"cls": 2.0},
        now=(0.5, 0.5),
        before=(0.1, 0.2),
        plans=(Plan("A", (0.1, 0.1), (60.0, 80.0)),),
        schedules=(
            Schedule(2e-4, "cosine", "lr/decoder", warmup=2000.0, steps=60000.0),
            Schedule(1.0, "step", unit="epoch", milestones=(8.0, 11.0)),
        ),
        steps_per_epoch=4689.0,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        "clip = ",
        "clips = 35",
        'clip = "high"',
        "layers = 3",
        "[[plan]]\nname = 'A'",
        "[[plan]]\nname = 'A'\nlayers = [1]\nexpected = [1]",
        "[[schedule]]\nkind = 'cosine'\nbase = 1",
        "[[schedule]]\nbase = 1\nspeed = 2",
        "[[schedule]]\nkind = 'constant'",
        "[[schedule]]\nbase = [1]\nkind = 'cosine'\nsteps = 5",
        "schedule = 3",
        "steps_per_epoch = 0",
    ],
)
def test_what_is_no_card(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(wrong)
    with pytest.raises(SettingsError):
        read_card(path)


def test_a_card_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        read_card(tmp_path / "missing.toml")
