"""What each operation does beyond what all of them promise."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.errors import (
    CorruptFile,
    InvalidParameter,
    NoSuchTensor,
    OperationError,
    VerificationFailed,
)
from ckptools.workflows.operate import operate, recipe, undo
from tests.builders.sharded_folders import loaded, sharded
from tests.builders.training_files import Tiny, load, resume, training_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    training_file(folder / "epoch_2.pth", steps=2)
    return training_file(folder / "epoch_3.pth")


def after(name: str, source: Path, tmp_path: Path, **options: Any) -> Any:
    return load(operate(name, source, tmp_path / "new.pth", **options).output["path"])


def rates(saved: Any, key: str = "lr") -> list[float]:
    return [group[key] for group in saved["optimizer_state_dict"]["param_groups"]]


# -- strip, assign, reset-optimizer ----------------------------------------------------------


def test_strip_takes_the_records_along(run: Path, tmp_path: Path) -> None:
    new = after("strip", run, tmp_path)
    assert "optimizer_state_dict" not in new
    assert "scheduler_state_dict" not in new
    assert new["epoch"] == 3
    assert (tmp_path / "new.pth").stat().st_size < 0.7 * run.stat().st_size
    old, left = (len(zipfile.ZipFile(path).namelist()) for path in (run, tmp_path / "new.pth"))
    assert old - left == 3 * 15


def test_strip_of_averages_and_of_nothing(run: Path, tmp_path: Path) -> None:
    assert "ema_state_dict" not in after("strip", run, tmp_path, part="ema")
    with pytest.raises(OperationError, match="holds none of: scaler"):
        operate("strip", run, part="scaler")


def test_an_assigned_rate_survives_the_scheduler(run: Path, tmp_path: Path) -> None:
    old, new = load(run), after("assign", run, tmp_path, lr="x0.1")
    assert rates(new) == pytest.approx([rate / 10 for rate in rates(old)])
    next_rates = []
    for saved in (old, new):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        optimizer.add_param_group({"params": [torch.zeros(2)]})
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        for group, rate, base in zip(
            optimizer.param_groups, rates(saved), rates(saved, "initial_lr"), strict=True
        ):
            group.update(lr=rate, initial_lr=base)
        scheduler.load_state_dict(saved["scheduler_state_dict"])
        optimizer.step()
        scheduler.step()
        next_rates.append([group["lr"] for group in optimizer.param_groups])
    assert next_rates[1] == pytest.approx([rate / 10 for rate in next_rates[0]])


def test_assign_of_one_group_leaves_the_other(run: Path, tmp_path: Path) -> None:
    new = after("assign", run, tmp_path, group="vectors", lr="1e-5", betas="0.8,0.9", epoch=7)
    old = load(run)
    assert rates(new) == [rates(old)[0], 1e-5]
    assert rates(new, "betas") == [(0.9, 0.999), (0.8, 0.9)]
    assert new["epoch"] == 7
    assert new["scheduler_state_dict"]["eta_min"] == 1e-6  # of all groups, so of none


def test_assign_counts_steps_everywhere(run: Path, tmp_path: Path) -> None:
    new = after("assign", run, tmp_path, step=100)
    assert new["global_step"] == 100
    assert {s["step"].item() for s in new["optimizer_state_dict"]["state"].values()} == {100.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing is assigned"),
        ({"momentum": 0.9}, "AdamW has no momentum"),
        ({"group": "decoder", "lr": "1"}, "groups: matrices, vectors"),
        ({"lr": "fast"}, "learning rate 'fast'"),
        ({"betas": "0.9"}, "two numbers"),
        ({"betas": "0.9,1.0"}, "not below 1"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps": -1e-8, "weight_decay": -0.1}, "eps is -1e-08; weight_decay is -0.1"),
        ({"momentum": float("inf")}, "momentum is inf"),
        ({"step": -5}, "step is -5"),
        ({"epoch": -1}, "epoch is -1"),
    ],
)
def test_assign_refuses_what_makes_no_sense(
    run: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OperationError, match=message):
        operate("assign", run, **options)


def test_the_whole_optimizer_is_forgotten_without_names(tmp_path: Path) -> None:
    states = {i: {"step": 1, "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)} for i in "ab"}
    saved = {
        "state": dict(enumerate(states.values())),
        "param_groups": [{"params": [0, 1], "lr": 1}],
    }
    torch.save({"model": {"w.weight": torch.ones(3, 3)}, "optimizer": saved}, tmp_path / "a.pth")
    new = after("reset-optimizer", tmp_path / "a.pth", tmp_path)
    assert new["optimizer"] == {"state": {}, "param_groups": [{"params": [0, 1], "lr": 1}]}


def test_second_moments_alone_keep_the_corrected_first_ones(run: Path, tmp_path: Path) -> None:
    old = load(run)["optimizer_state_dict"]["state"][1]
    new = after("reset-optimizer", run, tmp_path, moments="second")["optimizer_state_dict"]
    now = new["state"][1]
    assert now["step"] == 1
    assert not now["exp_avg_sq"].any()
    corrected = old["exp_avg"] / (1 - 0.9**3)
    torch.testing.assert_close(now["exp_avg"] / (1 - 0.9), corrected)
    resume(tmp_path / "new.pth")


def test_slots_that_do_not_start_from_zero_are_left_to_the_optimizer(tmp_path: Path) -> None:
    path = training_file(tmp_path / "rprop.pth", kind="Rprop")
    new = after("reset", path, tmp_path, module="layers.1")
    names = [n for g in new["optimizer_state_dict"]["param_groups"] for n in g["param_names"]]
    there = {names[index] for index in new["optimizer_state_dict"]["state"]}
    assert set(names) - there == {name for name in names if name.startswith("layers.1.")}
    resume(tmp_path / "new.pth", kind="Rprop")


# -- drop, rename, cast ----------------------------------------------------------------------


def test_dropped_blocks_close_up_in_weights_average_and_optimizer(
    run: Path, tmp_path: Path
) -> None:
    receipt = operate("drop", run, tmp_path / "new.pth", module=("layers.0", "layers.2"))
    old, new = load(run), load(tmp_path / "new.pth")
    for key, prefix in (("model_state_dict", "module."), ("ema_state_dict", "")):
        assert torch.equal(
            new[key][f"{prefix}layers.0.up.weight"], old[key][f"{prefix}layers.1.up.weight"]
        )
        assert f"{prefix}layers.1.up.weight" not in new[key]
        assert f"{prefix}layers.2" not in new[key]._metadata
    groups = new["optimizer_state_dict"]["param_groups"]
    assert [group["params"] for group in groups] == [[0, 1, 2], [3, 4, 5, 6]]
    assert any("layers still says 3" in note for note in receipt.notes)
    resume(tmp_path / "new.pth", blocks=1)
    with pytest.raises(OperationError, match="would drop everything"):
        operate("drop", run, module="*")


def test_a_tied_parameter_lives_on_under_its_other_name(run: Path, tmp_path: Path) -> None:
    new = after("drop", run, tmp_path, module="embed")
    (first, _) = new["optimizer_state_dict"]["param_groups"]
    assert first["param_names"][0] == "head.weight"
    assert len(new["optimizer_state_dict"]["state"]) == 15


def test_rename_by_name_and_by_expression(run: Path, tmp_path: Path) -> None:
    new = after("rename", run, tmp_path, module=r"re:^layers\.(\d)", to=r"decoder.blocks.\1")
    assert "module.decoder.blocks.2.up.bias" in new["model_state_dict"]
    assert "module.decoder.blocks.2.up" in new["model_state_dict"]._metadata
    assert (
        "decoder.blocks.1.down.bias"
        in new["optimizer_state_dict"]["param_groups"][1]["param_names"]
    )
    with pytest.raises(OperationError, match="two tensors would get this name"):
        operate("rename", run, module="layers.0", to="layers.1")
    with pytest.raises(NoSuchTensor, match="nearest: layers"):
        operate("rename", run, module="layer", to="x")
    with pytest.raises(InvalidParameter, match="empty word"):
        operate("rename", run, module="re:layers", to="")


def test_a_cast_keeps_ties_and_refuses_to_overflow(tmp_path: Path, run: Path) -> None:
    new = after("cast", run, tmp_path, dtype="bfloat16")["model_state_dict"]
    old = load(run)["model_state_dict"]
    for name, value in old.items():
        expected = value.bfloat16() if value.is_floating_point() else value
        assert torch.equal(new[name], expected)
    large = {"a.weight": torch.tensor([1e6, 1.0]), "b.weight": torch.ones(2)}
    torch.save(large, tmp_path / "large.pth")
    with pytest.raises(OperationError, match="1 values are too large for float16"):
        operate("cast", tmp_path / "large.pth", dtype="float16")
    allowed = operate(
        "cast", tmp_path / "large.pth", dtype="float8_e5m2", module="b", overflow="allow"
    )
    assert load(allowed.output["path"])["b.weight"].dtype == torch.float8_e5m2


# -- values ----------------------------------------------------------------------------------


def test_blend_and_shrink_and_perturb(run: Path, tmp_path: Path) -> None:
    other = run.with_name("epoch_2.pth")
    key = "module.layers.1.up.weight"
    old, earlier = load(run)["model_state_dict"][key], load(other)["model_state_dict"][key]
    new = after("blend", run, tmp_path, module="layers.1", from_checkpoint=str(other), amount=0.25)
    torch.testing.assert_close(new["model_state_dict"][key], 0.75 * old + 0.25 * earlier)
    receipt = operate("blend", run, module="layers.1", shrink=0.4, amount=0.0, dry_run=True)
    assert receipt.changes[0].after["l2_norm"] == pytest.approx(0.4 * old.norm().item(), rel=1e-5)
    with pytest.raises(InvalidParameter, match="between 0 and 1"):
        operate("blend", run, module="layers.1", amount=2.0)


def test_rescale_to_siblings(run: Path, tmp_path: Path) -> None:
    saved = load(run)
    for name, value in saved["model_state_dict"].items():
        if name.startswith("module.layers.1."):
            value.mul_(100)
    torch.save(saved, tmp_path / "loud.pth")
    new = after("rescale", tmp_path / "loud.pth", tmp_path, module="layers.1")["model_state_dict"]
    size = {i: new[f"module.layers.{i}.up.weight"].norm().item() for i in range(3)}
    assert min(size[0], size[2]) <= size[1] <= max(size[0], size[2])
    with pytest.raises(OperationError, match="has no siblings"):
        operate("rescale", run, module="head")


def test_a_model_may_initialise_itself(run: Path, tmp_path: Path) -> None:
    spec = "tests.builders.training_files:Tiny"
    new = after("reset", run, tmp_path, module="layers.1", model=spec, seed=5)
    torch.manual_seed(5)
    fresh = Tiny().state_dict()["layers.1.up.weight"]
    assert torch.equal(new["model_state_dict"]["module.layers.1.up.weight"], fresh)
    with pytest.raises(InvalidParameter, match="exclude"):
        operate("reset", run, module="layers.1", model=spec, init="normal")


@pytest.mark.parametrize("body", ["def build():\n    raise KeyError('width')\n", "def other(:\n"])
def test_a_model_that_cannot_be_built_is_told_in_one_line(
    run: Path, tmp_path: Path, body: str
) -> None:
    (tmp_path / "mine.py").write_text(body)
    with pytest.raises(InvalidParameter, match="cannot build the model"):
        operate("reset", run, module="layers.1", model=f"{tmp_path / 'mine.py'}:build")


def test_a_warm_start_takes_the_siblings_second_moments(run: Path, tmp_path: Path) -> None:
    new = after("reset", run, tmp_path, module="layers.1", optimizer="warm")
    old = load(run)["optimizer_state_dict"]
    names = old["param_groups"][0]["param_names"]
    mine, one, two = (names.index(f"layers.{i}.up.weight") for i in (1, 0, 2))
    state = new["optimizer_state_dict"]["state"][mine]
    expected = torch.stack([old["state"][i]["exp_avg_sq"].mean() for i in (one, two)]).mean()
    torch.testing.assert_close(state["exp_avg_sq"].unique(), expected.reshape(1))
    assert not state["exp_avg"].any()
    assert state["step"] == 3


# -- repair ----------------------------------------------------------------------------------


def flipped(path: Path, source: Path, record: str, byte: int, *bits: int) -> Path:
    """Copy a file with some bits of a record flipped."""
    data = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        (entry,) = [one for one in archive.infolist() if one.filename.endswith(record)]
    lengths = data[entry.header_offset + 26 : entry.header_offset + 30]
    start = (
        entry.header_offset + 30 + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
    )
    for bit in bits:
        data[start + byte] ^= 1 << bit
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("record", ["data/2", "data/7", "data.pkl"])
def test_a_flipped_bit_is_turned_back(record: str, run: Path, tmp_path: Path) -> None:
    byte = 13
    if record == "data.pkl":
        with zipfile.ZipFile(run) as archive:
            byte = archive.read("epoch_3/data.pkl").index(b"epoch") + 1
    path = flipped(tmp_path / "sick.pth", run, record, byte, 1)
    receipt = operate("repair", path)
    assert Path(receipt.output["path"]).read_bytes() == run.read_bytes()
    assert "bit 1" in str(receipt.changes[0].detail)
    if record != "data.pkl":
        with pytest.raises(VerificationFailed, match="ckptools repair"):
            operate("reset", path, module="norm", optimizer="keep")


def test_worse_damage_needs_an_earlier_epoch(run: Path, tmp_path: Path) -> None:
    path = flipped(tmp_path / "sick.pth", run, "data/2", 13, 1, 2)
    with pytest.raises(OperationError, match="take them from an earlier epoch"):
        operate("repair", path)
    new = after("repair", path, tmp_path, from_checkpoint=str(run.with_name("epoch_2.pth")))
    earlier = load(run.with_name("epoch_2.pth"))["model_state_dict"]
    old = load(run)["model_state_dict"]
    differ = [k for k, v in old.items() if not torch.equal(new["model_state_dict"][k], v)]
    assert len(differ) == 1
    assert torch.equal(new["model_state_dict"][differ[0]], earlier[differ[0]])


def test_numbers_that_are_none_are_replaced_one_by_one(run: Path, tmp_path: Path) -> None:
    saved, other = load(run), run.with_name("epoch_2.pth")
    key = "module.layers.0.up.weight"
    saved["model_state_dict"][key][1, 2] = float("inf")
    saved["optimizer_state_dict"]["state"][1]["exp_avg_sq"][0] = -1
    torch.save(saved, tmp_path / "sick.pth")
    new = after("repair", tmp_path / "sick.pth", tmp_path)
    assert new["model_state_dict"][key][1, 2] == 0
    second = new["optimizer_state_dict"]["state"][1]["exp_avg_sq"]
    torch.testing.assert_close(second[0], second[1:].mean().expand(8))
    receipt = operate("repair", tmp_path / "sick.pth", from_checkpoint=str(other))
    again = load(receipt.output["path"])["model_state_dict"][key]
    assert again[1, 2] == load(other)["model_state_dict"][key][1, 2]
    with pytest.raises(OperationError, match="nothing to repair"):
        operate("repair", run)


@pytest.mark.parametrize("share", [0.995, 0.9, 0.75, 0.6])
def test_a_truncated_file_is_salvaged(share: float, run: Path, tmp_path: Path) -> None:
    data = run.read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(data[: int(len(data) * share)])
    for donor in (None, str(run.with_name("epoch_2.pth"))):
        new = after("repair", path, tmp_path, from_checkpoint=donor, force=True)
        old = load(run)
        for name, value in old["model_state_dict"].items():
            assert torch.equal(new["model_state_dict"][name], value)
        if donor:
            assert len(new["optimizer_state_dict"]["state"]) == 15
        resume(tmp_path / "new.pth")
        undo(tmp_path / "new.receipt.json", tmp_path / "back.pth", force=True)
        assert (tmp_path / "back.pth").read_bytes() == path.read_bytes()


# -- recipes ---------------------------------------------------------------------------------

RECIPE = """
[[step]]
operation = "transplant"
module = ["layers.1"]
from = "{donor}"

[[step]]
operation = "assign"
lr = "x0.1"

[[step]]
operation = "drop"
module = "layers.0"
"""


def test_a_recipe_runs_in_order_and_its_receipt_is_one(run: Path, tmp_path: Path) -> None:
    written = tmp_path / "plan.toml"
    written.write_text(RECIPE.format(donor=run.with_name("epoch_2.pth")))
    planned = recipe(written, run, tmp_path / "a.pth", dry_run=True)
    done = recipe(written, run, tmp_path / "a.pth")
    assert planned.changes == done.changes
    assert [step["operation"] for step in done.parameters["steps"]] == [
        "transplant", "assign", "drop",
    ]  # fmt: skip
    resume(tmp_path / "a.pth", blocks=2)
    again = recipe(tmp_path / "a.receipt.json", run, tmp_path / "b.pth")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    undo(again.undo, tmp_path / "back.pth")
    assert (tmp_path / "back.pth").read_bytes() == run.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {
        "plan.toml", "a.pth", "a.undo", "a.receipt.json", "b.pth", "b.undo", "b.receipt.json",
        "back.pth",
    }  # fmt: skip


def test_a_single_receipt_is_a_recipe(run: Path, tmp_path: Path) -> None:
    operate("reset", run, tmp_path / "a.pth", module="layers.1", seed=4)
    recipe(tmp_path / "a.receipt.json", run, tmp_path / "b.pth")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no \\[\\[step\\]\\]"),
        ("[[step]]\nmodule = 'a'", "step 1 names no operation"),
        ("[[step]]\noperation = 'melt'", "no operation 'melt'"),
        ("[[step", "cannot be read"),
        ("[[step]]\noperation = 'reset'", "plan.toml: step 1: module is needed"),
        ("[[step]]\noperation = 'reset'\nmodule = {a = 1}", "module is {'a': 1}, not a word"),
        ("[[step]]\noperation = 'reset'\nmodule = 'a'\nseed = 1.5", "not a whole number"),
        ("[[step]]\noperation = 'reset'\nmodule = 'a'\nmatch_scale = 'x'", "not true or false"),
        ("[[step]]\noperation = 'rescale'\nmodule = 'a'\nfactor = 'two'", "not a number"),
        ("[[step]]\noperation = 'rescale'\nmodule = 'a'\nfactor = nan", "factor is nan, not a"),
        ("[[step]]\noperation = 'transplant'\nmodule = 'a'", "step 1: from is needed"),
        ("[[step]]\noperation = 'rename'\nmodule = true\nto = 'b'", "module is True"),
        ("[[step]]\noperation = 'strip'\npart = ['ema', 'all']", "'all', not one of"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(
    text: str, message: str, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InvalidParameter, match=message):
        recipe(tmp_path / "plan.toml", run)


def test_numbers_are_names_and_settings_too(run: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    steps = ["assign'\nlr = 0.5\nbetas = [0.8, 0.9]\ngroup = 1", "rename'\nmodule = 'norm'\nto = 7"]
    plan.write_text("".join(f"[[step]]\noperation = '{step}\n" for step in steps))
    new = load(recipe(plan, run, tmp_path / "new.pth").output["path"])
    assert rates(new) == [pytest.approx(rates(load(run))[0]), 0.5]
    assert new["optimizer_state_dict"]["param_groups"][1]["betas"] == (0.8, 0.9)
    assert "module.7.weight" in new["model_state_dict"]


def test_a_later_step_that_fails_is_named_with_the_users_own_file(
    run: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        "[[step]]\noperation = 'reset'\nmodule = 'layers.1'\n"
        "[[step]]\noperation = 'rescale'\nmodule = 'qqq'\nfactor = 2.0\n"
    )
    with pytest.raises(NoSuchTensor) as caught:
        recipe(plan, run, tmp_path / "new.pth")
    assert str(caught.value).startswith(f"step 2: {run}: nothing is called 'qqq'")
    assert ".part" not in str(caught.value)


def test_a_checkpoint_is_no_recipe(run: Path) -> None:
    with pytest.raises(InvalidParameter, match="RECIPE CHECKPOINT"):
        recipe(run, run)


# -- what was missing ------------------------------------------------------------------------


def test_children_of_a_sequence_close_up_too(tmp_path: Path) -> None:
    layers = [
        torch.nn.Linear(4, 8),
        torch.nn.ReLU(),
        torch.nn.LayerNorm(8),
        torch.nn.Linear(8, 2),
    ]
    net = torch.nn.Sequential(*layers)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    operate("drop", tmp_path / "net.pth", tmp_path / "new.pth", module="2")
    left = torch.nn.Sequential(*layers[:2], layers[3])
    left.load_state_dict(torch.load(tmp_path / "new.pth", weights_only=True), strict=True)


def test_networks_of_one_architecture_are_two_networks(tmp_path: Path) -> None:
    first, second = ({f"layers.{i}.weight": torch.randn(3, 3) for i in range(3)} for _ in "ab")
    saved = {"generator": first, "discriminator": second, "generator_ema": first.copy()}
    torch.save(saved, tmp_path / "two.pth")
    options = {"module": "layers.1", "set": "generator"}
    operate("drop", tmp_path / "two.pth", tmp_path / "new.pth", **options)
    new = torch.load(tmp_path / "new.pth", weights_only=True)
    assert {name: len(part) for name, part in new.items()} == {
        "generator": 2, "discriminator": 3, "generator_ema": 2,
    }  # fmt: skip


@pytest.mark.parametrize("new", [True, False])
def test_a_transplant_creates_the_states_that_are_missing(
    new: bool, run: Path, tmp_path: Path
) -> None:
    saved = load(run)
    names = [
        n for group in saved["optimizer_state_dict"]["param_groups"] for n in group["param_names"]
    ]
    mine = [index for index, name in enumerate(names) if name.startswith("layers.1.")]
    states = {index: saved["optimizer_state_dict"]["state"].pop(index) for index in mine}
    torch.save(saved, tmp_path / "poor.pth", _use_new_zipfile_serialization=new)
    operate(
        "transplant", tmp_path / "poor.pth", tmp_path / "new.pth", module="layers.1",
        from_checkpoint=str(run),
    )  # fmt: skip
    found = load(tmp_path / "new.pth")["optimizer_state_dict"]["state"]
    assert len(found) == 15
    for index, state in states.items():
        assert all(torch.equal(found[index][slot], value) for slot, value in state.items())
    resume(tmp_path / "new.pth")
    undo(tmp_path / "new.receipt.json", tmp_path / "back.pth")
    assert (tmp_path / "back.pth").read_bytes() == (tmp_path / "poor.pth").read_bytes()


def test_a_pickle_that_cannot_be_read_is_mended_by_its_checksum(run: Path, tmp_path: Path) -> None:
    whole = run.read_bytes()
    place = whole.index(b"optimizer_state_dict") - 5  # the opcode that says a string follows
    sick = bytearray(whole)
    sick[place] ^= 0x40
    (tmp_path / "sick.pth").write_bytes(sick)
    with pytest.raises(CorruptFile):
        operate("reset", tmp_path / "sick.pth", module="layers.1")
    operate("repair", tmp_path / "sick.pth", tmp_path / "new.pth")
    assert (tmp_path / "new.pth").read_bytes() == whole
    sick[place + 1] ^= 0x81
    sick[place + 9] ^= 0x0F
    (tmp_path / "sick.pth").write_bytes(sick)
    with pytest.raises(OperationError, match="values have no names"):
        operate("repair", tmp_path / "sick.pth")


@pytest.mark.parametrize("beyond", [False, True])
def test_a_damaged_shard_is_mended(beyond: bool, tmp_path: Path) -> None:
    source = sharded(tmp_path / "run", "bin")
    sharded(tmp_path / "early", "bin")
    shard = source / "pytorch_model-00002-of-00003.bin"
    whole = shard.read_bytes()
    sick = bytearray(whole)
    place = whole.index(loaded(source)["layers.1.0.weight"].numpy().tobytes())
    sick[place + 2] ^= 1
    if beyond:
        sick[place + 40 : place + 60] = bytes(20)
    shard.write_bytes(sick)
    operate("repair", source, tmp_path / "new", from_checkpoint=str(tmp_path / "early"))
    assert (tmp_path / "new" / shard.name).read_bytes() == whole
