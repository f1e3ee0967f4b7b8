from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from ckptools import layouts
from ckptools.cli import main as cli
from ckptools.compare import changes, kin, passing, updates, zero_sums
from ckptools.errors import OpenError
from ckptools.report import media, render
from ckptools.rules import needs
from ckptools.rules.optimizer import zero_sum_lost
from ckptools.sources import keeping
from ckptools.sources.local import LocalSource
from ckptools.types.checkpoint import Checkpoint
from ckptools.workflows import timeline_steps as module
from ckptools.workflows.inspect import inspect
from ckptools.workflows.timeline import timeline
from tests.builders.pairs import FC1, noise, run, weight
from tests.builders.shared import shared
from tests.builders.small_run import State, planted


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    for path in run():
        shutil.copy(path, made / path.name)
    return made


def test_a_healthy_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["timeline", str(folder), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "ckptools.timeline/1"
    assert [one["epoch"] for one in found["checkpoints"]] == [0, 1, 2, 3, 4, 5]
    assert found["onset"] is None
    assert found["last_good"]["epoch"] == 5
    assert {one["name"] for one in found["series"]} >= {"blocks.0", "embed", "head"}
    for row in found["series"]:
        assert len(row["l2_norm"]) == len(row["relative_change"]) == len(row["cosine"]) == 6
        assert row["relative_change"][0] is None
        assert None not in row["l2_norm"]
    assert found["unreadable"] == []


def test_onset_and_last_good(folder: Path) -> None:
    target = folder / "checkpoint_epoch_3.pth"
    planted(run()[3], target, weight(FC1, noise))
    found = timeline(folder)
    assert found.onset is not None
    assert (found.onset["epoch"], found.onset["target"]) == (3, FC1)
    assert found.onset["code"] in {finding.code for finding in found.findings}
    assert found.last_good is not None
    assert found.last_good["epoch"] == 2


def test_a_second_look_compares_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(run()[3], folder / "checkpoint_epoch_3.pth", weight(FC1, noise))
    first = timeline(folder)

    def forbidden(*_: object) -> None:
        raise AssertionError("compared again")

    monkeypatch.setattr(module, "compare", forbidden)
    monkeypatch.setattr(module, "measure", forbidden)
    again = timeline(folder)
    assert again.document() == json.loads(json.dumps(first.document()))
    with pytest.raises(AssertionError):
        timeline(folder, cached=False)
    with pytest.raises(AssertionError):
        timeline(folder, select=["CHG"])  # other rules are another question


def test_small_files_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = counted(monkeypatch)
    timeline(folder, cached=False, ignore=["CHG211"])  # samples of the file before the last one
    for path in folder.iterdir():
        headers = read[str(path), "open"]
        assert read[str(path), "all"] - headers == path.stat().st_size


@pytest.mark.parametrize("damaged", [False, True], ids=["healthy", "damaged"])
@pytest.mark.parametrize("compiled_above", [0, 1 << 60], ids=["compiled", "plain"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("AdamW", torch.float32),
        ("AdamW", torch.bfloat16),
        ("AMSGrad", torch.float32),
        ("AdamW", torch.float64),
        ("SGD", torch.float32),
        ("Adagrad", torch.bfloat16),
        ("RMSprop", torch.float32),
    ],
)
def test_large_files_are_read_twice_at_most(
    kind: str,
    dtype: torch.dtype,
    compiled_above: int,
    damaged: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    series = [large(tmp_path / f"epoch_{epoch}.pt", epoch, dtype, kind) for epoch in range(4)]
    if damaged:
        planted(series[2], series[2], weight("2.weight", noise))
    as_if_larger(monkeypatch, 500e6 / series[0].stat().st_size)
    monkeypatch.setattr(passing, "COMPILED_ABOVE", compiled_above)
    with monkeypatch.context() as patch:
        patch.setattr(keeping, "SMALL", 1 << 30)
        expected = timeline(*series, cached=False)
    read = counted(monkeypatch)
    found = timeline(*series, cached=False)
    require_two_readings(read, series)
    assert read[str(series[1]), "all"] > 1.4 * series[1].stat().st_size  # else it was kept whole
    assert [one.digests for one in found.steps] == [one.digests for one in expected.steps]
    assert found.document()["relations"] == expected.document()["relations"]
    assert found.document()["findings"] == expected.document()["findings"]


def test_single_steps_of_a_large_sgd_run_are_replayed_without_another_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = [large(tmp_path / f"{n}.pt", n, torch.float32, "SGD", steps=1) for n in range(4)]
    planted(series[2], series[2], weight("2.weight", noise))
    as_if_larger(monkeypatch, 500e6 / series[0].stat().st_size)
    read = counted(monkeypatch)
    found = timeline(*series, cached=False)
    require_two_readings(read, series)
    (moved,) = [one for one in found.findings if one.code == "CHG112" and "2.weight" in one.target]
    assert moved.evidence["bound"] == "sgd-replay"


def test_names_that_a_large_file_does_not_tell_in_passing_are_not_read_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = [large(tmp_path / f"{n}.pt", n, torch.float32, "AdamW", steps=60) for n in range(3)]
    planted(series[1], series[1], weight("2.weight", noise))
    as_if_larger(monkeypatch, 500e6 / series[0].stat().st_size)
    read = counted(monkeypatch)
    found = timeline(*series, cached=False)
    require_two_readings(read, series)
    told = [reason for reason in found.document()["not_judged"] if "ckptools diff only" in reason]
    assert told


@pytest.mark.parametrize(
    ("kind", "slot"),
    [("SGD", "momentum_buffer"), ("Adagrad", "sum"), ("RMSprop", "square_avg")],
)
def test_a_slot_that_one_file_lacks_is_no_crash(kind: str, slot: str, tmp_path: Path) -> None:
    series = [large(tmp_path / f"{n}.pt", n, torch.float32, kind, steps=1) for n in range(2)]

    def without(state: State) -> None:
        del state["optimizer"]["state"][0][slot]
        state["optimizer"]["state"][0]["other"] = torch.ones(400, 700)

    planted(series[1], series[1], without)
    found = timeline(*series, cached=False)
    assert found.document()["crashed"] == []
    assert found.document()["relations"] == ["same-run"]


def require_two_readings(read: Counter[tuple[str, str]], series: list[Path]) -> None:
    """Require that each file was read, and at most twice; headers do not count."""
    for path in series:
        size = path.stat().st_size
        assert size - 20_000 < read[str(path), "all"] - read[str(path), "open"] < 2 * size


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Count the bytes that are read of each file: in all, and those that opening it takes."""
    read: Counter[tuple[str, str]] = Counter()
    whole, into, opening = LocalSource._pread, LocalSource._preadv, layouts.open

    def pread(self: LocalSource, offset: int, length: int) -> bytes:
        piece = whole(self, offset, length)
        read[self.name, "all"] += len(piece)
        return piece

    def preadv(self: LocalSource, offset: int, view: memoryview) -> int:
        count = into(self, offset, view)
        read[self.name, "all"] += count
        return count

    def opened(path: str) -> Checkpoint:
        checkpoint = opening(path)
        read[path, "open"] = read[path, "all"]
        return checkpoint

    monkeypatch.setattr(LocalSource, "_pread", pread)
    monkeypatch.setattr(LocalSource, "_preadv", preadv)
    monkeypatch.setattr(layouts, "open", opened)
    return read


def as_if_larger(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    """Shrink whatever is bounded in bytes, as if files were so many times larger."""
    bounds = (
        (keeping, "SMALL"),
        (changes, "WHOLE"),
        (needs, "REREAD"),
        (zero_sums, "BYTES"),
        (zero_sum_lost, "_BYTES"),
        (updates, "BYTES"),
        (updates, "SAMPLED"),
        (kin, "SMALL"),
        (kin, "SAMPLED"),
    )
    for place, name in bounds:
        monkeypatch.setattr(place, name, int(getattr(place, name) / times))


def large(path: Path, epoch: int, dtype: torch.dtype, kind: str, steps: int = 3) -> Path:
    """Write an epoch of an optimizer whose tensors span several chunks, its states not named."""
    torch.manual_seed(0)
    sides = (700, 400, 700, 400, 700, 400, 700, 400, 30)
    pairs = itertools.pairwise(sides)
    model = torch.nn.Sequential(*(torch.nn.Linear(one, two) for one, two in pairs)).to(dtype)
    settings = {"momentum": 0.9} if kind == "SGD" else {}
    settings |= {"amsgrad": True} if kind == "AMSGrad" else {}
    optimizer = getattr(torch.optim, kind.replace("AMSGrad", "Adam"))(
        model.parameters(), lr=1e-3, **settings
    )
    for _ in range(steps * (epoch + 1)):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, dtype=dtype)
        optimizer.step()
    counters = {"epoch": epoch, "global_step": steps * (epoch + 1)}
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**counters, **states}, path)
    return path


def test_a_changed_file_is_compared_again(folder: Path) -> None:
    assert timeline(folder).onset is None
    planted(run()[3], folder / "checkpoint_epoch_3.pth", weight(FC1, noise))
    assert timeline(folder).onset is not None


def test_foreign_unreadable_and_repeated_files(folder: Path) -> None:
    torch.save({"other.weight": torch.ones(3)}, folder / "other.pth")
    (folder / "broken.pth").write_bytes(b"no checkpoint")
    shutil.copy(run()[2], folder / "again.pth")
    found = timeline(folder)
    assert [Path(one.path).name for one in found.series.foreign] == ["other.pth"]
    assert [Path(path).name for path, _ in found.unreadable] == ["broken.pth"]
    assert len(found.series.repeated) == 1
    assert found.exit_code == 1


def test_a_disease_of_one_file_has_an_onset_and_is_told_once(folder: Path) -> None:
    def broken(state: State) -> None:
        state["model"]["proj.bias"][2] = float("nan")

    for epoch in (3, 4, 5):
        path = folder / f"checkpoint_epoch_{epoch}.pth"
        planted(run()[epoch], path, broken)
    found = timeline(folder, select=["NUM101"])
    assert found.onset is not None
    assert (found.onset["epoch"], found.onset["code"]) == (3, "NUM101")
    (one,) = found.findings
    assert one.evidence["checkpoints"] == 3
    assert one.message.startswith("epoch 3: ")


def test_a_restart_is_noticed(folder: Path) -> None:
    def again(state: State) -> None:
        for slots in state["optimizer"]["state"].values():
            slots["step"] -= 24
        state["global_step"] -= 24

    planted(run()[3], folder / "checkpoint_epoch_3.pth", again)
    found = timeline(folder)
    assert found.series.by == "epoch"
    assert [one.run.epoch for one in found.series.ordered] == [0, 1, 2, 3, 4, 5]
    assert [one.run.epoch for one in found.series.restarted] == [3]


def test_epochs_from_counters_of_batches(tmp_path: Path) -> None:
    for name, batches in (("b_2", 60), ("b_4", 120), ("b_7", 210)):
        held = {"bn.weight": torch.ones(4), "bn.num_batches_tracked": torch.tensor(batches)}
        torch.save(held, tmp_path / f"{name}.pth")
    found = timeline(tmp_path)
    assert found.batches == (30,)
    assert [one["epoch"] for one in found.document()["checkpoints"]] == [2, 4, 7]
    held["bn.num_batches_tracked"] += 1
    torch.save(held, tmp_path / "b_7.pth")
    assert timeline(tmp_path).batches == ()


def test_a_real_series_tells_its_epochs_by_its_counters() -> None:
    found = timeline(shared("data/series/mnist-dcgan"))
    assert found.batches == (1875, 2811)
    document = found.document()
    assert [one["epoch"] for one in document["checkpoints"]] == [10, 20, 30, 40]
    assert document["relations"] == ["same-run"] * 3
    assert [f for f in found.findings if f.confidence != "hint"] == []


def test_measurements_stand_in_for_files(folder: Path, tmp_path: Path) -> None:
    kept = [tmp_path / f"measures_{epoch}" for epoch in (1, 2)]
    for epoch, path in enumerate(kept, 1):
        inspect(folder / f"checkpoint_epoch_{epoch}.pth", save_measures=path)
    found = timeline(*kept, folder / "checkpoint_epoch_3.pth", folder / "checkpoint_epoch_4.pth")
    assert [one.run.epoch for one in found.series.ordered] == [1, 2, 3, 4]
    assert [step.relation for step in found.steps[1:]] == ["same-run"] * 3
    rows = found.rows_of_modules()
    assert all(None not in row["l2_norm"] for row in rows)
    assert all(row["relative_change"][:3] == [None] * 3 for row in rows)
    assert all(row["relative_change"][3] for row in rows)
    assert found.onset is None


def test_order_from_names(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        torch.save({"w": torch.full((4, 4), float(number))}, tmp_path / f"model_{number}.pth")
    found = timeline(*sorted(tmp_path.glob("model_*.pth")))
    assert found.series.by == "name"
    names = [Path(one.path).name for one in found.series.ordered]
    assert names == ["model_1.pth", "model_9.pth", "model_10.pth"]


def test_nothing_to_follow(tmp_path: Path) -> None:
    with pytest.raises(OpenError):
        timeline(tmp_path / "missing.pth")
    assert timeline(run()[0]).exit_code == 2


@pytest.mark.parametrize("medium", media.names())
def test_every_medium(medium: str, folder: Path) -> None:
    result = timeline(folder)
    assert render(result, medium)
    assert len(result.rows()) == 6 * len(result.rows_of_modules())
