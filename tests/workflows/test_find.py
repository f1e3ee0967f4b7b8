from __future__ import annotations

from pathlib import Path

import pytest

from ckptools.errors import AmbiguousLayout, OpenError
from ckptools.workflows.find import find, has_receipt, resolve


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_the_only_checkpoint_is_taken(tmp_path: Path) -> None:
    fill(tmp_path, "notes.txt", "last.CKPT", "log.jsonl")
    assert find(tmp_path).path.name == "last.CKPT"


def test_of_one_series_the_newest_is_taken_by_number_not_by_text(tmp_path: Path) -> None:
    fill(tmp_path, *(f"checkpoint_epoch_{epoch}.pth" for epoch in (2, 9, 10, 1)))
    found = find(tmp_path)
    assert found.path.name == "checkpoint_epoch_10.pth"
    assert "4" in found.why


def test_several_numbers_in_a_name_count_from_the_left(tmp_path: Path) -> None:
    fill(tmp_path, "epoch=3-step=900.ckpt", "epoch=12-step=100.ckpt")
    assert find(tmp_path).path.name == "epoch=12-step=100.ckpt"


def test_unrelated_ones_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, "best.pth", "model.safetensors")
    with pytest.raises(AmbiguousLayout, match=r"best\.pth, model\.safetensors"):
        find(tmp_path)


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{letter}.pth" for letter in "abcdefghijklmnop"))
    with pytest.raises(AmbiguousLayout, match="and 6 more"):
        find(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="holds no checkpoint"):
        find(tmp_path)


def test_what_surgery_wrote_is_never_picked(tmp_path: Path) -> None:
    fill(tmp_path, "e_12.pth", "e_12.reset.pth", "e_12.reset.receipt.json")
    assert find(tmp_path).path.name == "e_12.pth"
    assert has_receipt(tmp_path / "e_12.reset.pth")
    fill(tmp_path, "e_12.x.pth.tar", "e_12.x.receipt.json")
    assert has_receipt(tmp_path / "e_12.x.pth.tar")


@pytest.mark.parametrize(
    "names",
    [
        ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "x.pth"],
        ["trainer_state.json", "pytorch_model.bin", "optimizer.pt"],
        ["model.safetensors", "optimizer.bin", "random_states_0.pkl"],
        ["adapter_model.safetensors", "training_args.bin", "rng_state_0.pth"],
    ],
)
def test_a_folder_that_is_a_checkpoint_is_taken_whole(tmp_path: Path, names: list[str]) -> None:
    assert find(fill(tmp_path, *names)).path == tmp_path


def test_a_folder_named_like_a_checkpoint_is_none(tmp_path: Path) -> None:
    (tmp_path / "runs.pt").mkdir()
    fill(tmp_path, "a.pth")
    assert find(tmp_path).path.name == "a.pth"


def test_what_was_picked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fill(tmp_path, "a_1.pth", "a_2.pth"))
    said: list[str] = []
    assert resolve(None, said.append) == Path("a_2.pth")
    assert said == ["a_2.pth: the newest of 2 here"]
    assert resolve(Path("b.pth"), said.append) == Path("b.pth")
    assert len(said) == 1
