from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from ckptools.lanes import scenes
from ckptools.lanes.scenes import CLASSES, batch, batches


def ground(tiles: torch.Tensor) -> torch.Tensor:
    """Put camera tiles together again: (scenes, channels, rows, columns)."""
    down, across = scenes.CAMERA_GRID
    grid = tiles.unflatten(1, (down, across))
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def test_same_seed_same_scenes() -> None:
    first, again, other = batch(3, 1), batch(3, 1), batch(4, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["tiles"], other["tiles"])


def test_batches_differ_and_repeat_from_the_seed() -> None:
    one, two = islice(batches(7, size=4), 2)
    assert not torch.equal(one["lines"], two["lines"])
    assert torch.equal(two["lines"], batch(7, 1, size=4)["lines"])


def test_shapes() -> None:
    made = batch(0, 0, size=5)
    assert made["tiles"].shape == (5, 6, 4, 24, 16)
    assert made["lines"].shape == (5, 4, 8, 3)
    assert made["classes"].shape == (5, 4)


def test_one_to_four_lines_before_the_empty_places() -> None:
    present = batch(0, 0, size=64)["classes"] >= 0
    assert set(present.sum(1).tolist()) == {1, 2, 3, 4}
    assert (present.int().diff(dim=1) <= 0).all()


def test_lines_stay_on_the_ground_and_have_one_direction() -> None:
    made = batch(1, 0, size=64)
    lines, classes = made["lines"], made["classes"]
    assert lines.min() >= 0.0
    assert lines.max() <= 1.0
    crossing = classes == CLASSES.index("crossing")
    assert (lines[crossing][..., 0].diff(dim=-1) > 0).all()
    ahead = (classes >= 0) & ~crossing
    assert (lines[ahead][..., 1].diff(dim=-1) > 0).all()


def test_a_line_is_seen_where_it_lies_in_the_color_of_its_class() -> None:
    made = batch(2, 0, size=16)
    picture = ground(made["tiles"])
    for scene, number in (made["classes"] >= 0).nonzero().tolist():
        label = int(made["classes"][scene, number])
        x, y, _ = (made["lines"][scene, number] * scenes.PIXELS).long().clamp(max=47).unbind(-1)
        nearby = [picture[scene, label, (y + d).clamp(0, 47), x] for d in (-1, 0, 1)]
        assert torch.stack(nearby).amax(0).min() > 0.25


def test_the_picture_is_empty_elsewhere() -> None:
    made = batch(2, 1, size=8)
    absent = [c for c in range(3) if not (made["classes"][0] == c).any()]
    for label in absent:
        assert ground(made["tiles"])[0, label].abs().max() < 6 * scenes.NOISE


def test_height_channel_tells_the_height() -> None:
    made = batch(5, 0, size=32)
    picture = ground(made["tiles"])[:, 3]
    seen, true = [], []
    for scene, number in (made["classes"] >= 0).nonzero().tolist():
        x, y, z = (made["lines"][scene, number, 4]).tolist()
        row, column = int(y * scenes.PIXELS), int(x * scenes.PIXELS)
        seen.append(float(picture[scene, row, column]))
        true.append(2 * z - 1)
    assert np.corrcoef(seen, true)[0, 1] > 0.8
