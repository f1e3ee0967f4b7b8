import json
import os

import numpy as np
import pytest
import safetensors.numpy
import torch

from ckptools.errors import AmbiguousLayout, CorruptFile, OpenError, UnknownFormat
from ckptools.formats import open_container
from ckptools.types.tree import entries

WEIGHTS = {"w": np.arange(4, dtype="f4")}


def trainer_folder(path):
    """Write what transformers' Trainer leaves behind, small."""
    safetensors.numpy.save_file(WEIGHTS, path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"from": name, "x": torch.ones(2)}, path / name)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 500, "epoch": 1.5}))
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return path


def accelerate_folder(path):
    """Write what accelerate's save_state leaves behind, small."""
    safetensors.numpy.save_file(WEIGHTS, path / "model.safetensors")
    safetensors.numpy.save_file(WEIGHTS, path / "model_1.safetensors")
    for name in ("optimizer.bin", "optimizer_1.bin", "scheduler.bin", "random_states_0.pkl"):
        torch.save({"from": name}, path / name)
    return path


def kinds(container):
    return [fault.kind for fault in container.faults]


def test_a_trainer_folder(tmp_path):
    container = open_container(str(trainer_folder(tmp_path)))
    assert container.format == "folder"
    assert container.metadata["kind"] == "hf-trainer"
    assert container.metadata["json"]["trainer_state.json"]["global_step"] == 500
    assert sorted(container.parts) == [
        "model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "training_args.bin",
    ]
    assert [key for key, _ in container.root.entries] == list(container.parts)
    assert container.faults == ()
    assert container.size_bytes == sum(part.size_bytes for part in container.parts.values())


def test_an_accelerate_folder(tmp_path):
    container = open_container(str(accelerate_folder(tmp_path)))
    assert container.metadata["kind"] == "accelerate"
    assert len(container.parts) == 6
    assert container.parts["random_states_0.pkl"].format == "torch-zip"


def test_a_sharded_trainer_folder(tmp_path):
    trainer_folder(tmp_path)
    os.rename(tmp_path / "model.safetensors", tmp_path / "model-1.safetensors")
    index = {"weight_map": {"w": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    container = open_container(str(tmp_path))
    assert container.parts["model.safetensors.index.json"].format == "sharded"
    assert "model-1.safetensors" not in container.parts


def test_a_damaged_part_is_told_and_the_rest_opened(tmp_path):
    trainer_folder(tmp_path)
    (tmp_path / "optimizer.pt").write_bytes(b"\0" * 100)
    (tmp_path / "trainer_state.json").write_text("[" * 100_000)
    container = open_container(str(tmp_path))
    assert sorted(kinds(container)) == ["unreadable-json", "unreadable-part"]
    assert [reason.split(":")[0] for reason in container.not_judged] == [
        "optimizer.pt",
        "trainer_state.json",
    ]


def test_faults_and_globals_of_parts_are_those_of_the_folder(tmp_path):
    trainer_folder(tmp_path)
    with open(tmp_path / "model.safetensors", "ab") as file:
        file.write(b"more")
    (tmp_path / "training_args.bin").write_bytes(b"cposix\nsystem\n(X\x01\x00\x00\x00xtR.")
    container = open_container(str(tmp_path))
    assert ("trailing-bytes", "model.safetensors: end of file") in [
        (fault.kind, fault.where) for fault in container.faults
    ]
    assert ("posix.system", "dangerous") in [(use.name, use.grade) for use in container.globals]


def test_nothing_readable_at_all_is_an_error(tmp_path):
    for name in ("optimizer.pt", "scheduler.pt"):
        (tmp_path / name).write_bytes(b"\0" * 50)
    with pytest.raises(UnknownFormat):
        open_container(str(tmp_path))


@pytest.mark.parametrize("name", ["weights.pth", "model.safetensors", "anything.without-a-meaning"])
def test_a_single_file_is_opened_itself(tmp_path, name):
    safetensors.numpy.save_file(WEIGHTS, tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "unrelated.bin").write_bytes(bytes(1000))
    container = open_container(str(tmp_path))
    assert container.format == "safetensors"
    assert container.path == str(tmp_path / name)
    assert [key for key, _ in entries(container.root)] == ["w"]


def test_shards_with_their_index_are_one(tmp_path):
    safetensors.numpy.save_file(WEIGHTS, tmp_path / "part-1.safetensors")
    index = {"weight_map": {"w": "part-1.safetensors"}}
    (tmp_path / "mine.index.json").write_text(json.dumps(index))
    assert open_container(str(tmp_path)).format == "sharded"


def test_several_checkpoints_are_ambiguous(tmp_path):
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(AmbiguousLayout, match=r"a\.pth, b\.pth"):
        open_container(str(tmp_path))


def test_two_spellings_of_one_model_are_ambiguous(tmp_path):
    trainer_folder(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(AmbiguousLayout, match=r"model\.safetensors, pytorch_model\.bin"):
        open_container(str(tmp_path))


def test_a_folder_of_checkpoint_folders(tmp_path):
    for step in (500, 1000):
        (tmp_path / f"checkpoint-{step}").mkdir()
    with pytest.raises(AmbiguousLayout, match="checkpoint-1000, checkpoint-500"):
        open_container(str(tmp_path))
    os.rmdir(tmp_path / "checkpoint-1000")
    with pytest.raises(UnknownFormat, match=r"try .*checkpoint-500"):
        open_container(str(tmp_path))


def test_folders_below_are_named(tmp_path):
    for inside in ("unet", "logs/version_0/checkpoints", "empty"):
        (tmp_path / inside).mkdir(parents=True)
    for file in ("unet/model.safetensors", "logs/version_0/checkpoints/last.ckpt"):
        (tmp_path / file).touch()
    with pytest.raises(AmbiguousLayout, match="logs/version_0/checkpoints, unet"):
        open_container(str(tmp_path))
    with pytest.raises(UnknownFormat) as caught:
        open_container(str(tmp_path / "logs"))
    assert str(caught.value.next).endswith("logs/version_0/checkpoints")


def test_an_empty_folder(tmp_path):
    with pytest.raises(UnknownFormat, match="no checkpoint in this folder, which holds nothing"):
        open_container(str(tmp_path))


def test_a_folder_without_checkpoints_tells_what_it_holds(tmp_path):
    (tmp_path / "assets").mkdir()
    for name in ("saved_model.pb", "variables.index", "fingerprint.pb"):
        (tmp_path / name).write_bytes(b"\0")
    told = r"holds assets/, fingerprint\.pb, saved_model\.pb and 1 more"
    with pytest.raises(UnknownFormat, match=told):
        open_container(str(tmp_path))


PAYLOAD = b"cbuiltins\nexec\n(X\x01\x00\x00\x00xtR."


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ([".metadata", "__0_0.distcp"], "DCP"),
        (["__0_0.distcp"], "DCP"),
        (["pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp"], "DCP"),
        (["latest", "zero_to_fp32.py", "global_step7/mp_rank_00_model_states.pt"], "DeepSpeed"),
        (["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"], "DeepSpeed"),
        (["global_step7/x"], "DeepSpeed"),
        (["latest"], "DeepSpeed"),
    ],
)
def test_distributed_formats_are_refused_and_nothing_is_opened(tmp_path, names, kind, monkeypatch):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PAYLOAD)

    def refuse(*arguments):
        raise AssertionError("a file was opened")

    if names != ["latest"]:
        monkeypatch.setattr("ckptools.formats.folder.open_container", refuse)
        monkeypatch.setattr("ckptools.formats.folder.format_name", refuse)
    with pytest.raises(UnknownFormat, match=rf"{kind}.*not supported yet"):
        open_container(str(tmp_path))


def test_one_ranks_part_is_not_taken_for_a_damaged_archive(tmp_path):
    part = tmp_path / "__0_0.distcp"
    torch.save({"w": torch.ones(3)}, part)
    assert open_container(str(part)).format == "torch-zip"
    (tmp_path / ".metadata").write_bytes(PAYLOAD)
    with pytest.raises(UnknownFormat, match=r"DCP.*not supported yet") as caught:
        open_container(str(part))
    assert caught.value.where == str(tmp_path)


def test_weights_beside_deepspeeds_files_are_read_and_those_not(tmp_path):
    trainer_folder(tmp_path)
    (tmp_path / "global_step500").mkdir()
    (tmp_path / "zero_to_fp32.py").write_text("raise SystemExit")
    container = open_container(str(tmp_path))
    assert container.not_judged == ("the DeepSpeed files beside the weights",)


def test_loops_pipes_and_dangling_links_are_passed_over(tmp_path):
    safetensors.numpy.save_file(WEIGHTS, tmp_path / "w.pth")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "checkpoint-1").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")
    assert open_container(str(tmp_path)).format == "safetensors"


def test_a_folder_that_cannot_be_one_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("ckptools.formats.folder.MAX_ENTRIES", 10)
    for number in range(11):
        (tmp_path / f"{number}.dat").write_bytes(b"x")
    with pytest.raises(OpenError, match="more than 10 entries"):
        open_container(str(tmp_path))
    monkeypatch.setattr("ckptools.formats.folder.MAX_ENTRIES", 100)
    monkeypatch.setattr("ckptools.formats.folder.MAX_CANDIDATES", 10)
    with pytest.raises(OpenError, match="11 files"):
        open_container(str(tmp_path))


def test_a_damaged_index_in_a_folder(tmp_path):
    (tmp_path / "x.index.json").write_text('{"weight_map": 7, "padding": "padding"}')
    with pytest.raises(CorruptFile, match="weight_map"):
        open_container(str(tmp_path))
