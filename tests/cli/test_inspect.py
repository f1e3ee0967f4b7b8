"""``ckptools inspect`` as a user calls it, on files that torch wrote."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
from torch import nn

from ckptools.cli import main as cli
from ckptools.stats import kernel
from tests.builders.shared import shared
from tests.contract.test_documents import ERROR, INSPECT, misfits


def save(path: Path, *, epoch: int = 12, seed: int = 0) -> Path:
    """Save a small trained model as people do, behind DDP's prefix."""
    torch.manual_seed(seed)
    layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)) for _ in range(4))
    model = nn.ModuleDict({"layers": layers, "层异常": nn.Linear(8, 2)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(5):
        x = torch.randn(32, 8)
        for layer in layers:
            x = x + layer(x)
        loss = model["层异常"](x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(
        {
            "epoch": epoch,
            "model_state_dict": {f"module.{k}": v for k, v in model.state_dict().items()},
            "optimizer_state_dict": optimizer.state_dict(),
            "args": argparse.Namespace(lr=1e-3, name="test"),
        },
        path,
    )
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("run") / "checkpoint_epoch_12.pth")


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save(tmp_path_factory.mktemp("sick") / "checkpoint_epoch_13.pth")
    content = torch.load(path, weights_only=False)
    content["model_state_dict"]["module.layers.2.0.weight"][3, 5] = float("nan")
    torch.save(content, path)
    return path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in an empty folder; give (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(one) for one in arguments])
        return code, *capsys.readouterr()

    return run


def test_the_page_of_a_healthy_checkpoint(run: Run, checkpoint: Path) -> None:
    code, out, err = run("inspect", checkpoint)
    assert (code, err) == (0, "")
    for part in ("epoch 12", "torch-zip", "module.", "AdamW", "layers × 4", "层异常", "18 of 18"):
        assert part in out


def test_the_page_of_a_sick_checkpoint_names_the_place(run: Run, sick: Path) -> None:
    code, out, _ = run("inspect", sick)
    assert code == 1
    assert "error    NUM101 nonfinite-weight (proof)  layers.2.0.weight" in out
    assert out.index("NUM101") < out.index("── File")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 1),
        (["--fail-on", "never"], 0),
        (["--ignore", "NUM101"], 0),
        (["--select", "FIL,KEY"], 0),
        (["--select", "KEY", "--select", "NUM101"], 1),
        (["--list"], 0),
    ],
)
def test_options_decide_the_exit_code(run: Run, sick: Path, options: list[str], code: int) -> None:
    assert run("inspect", sick, "-q", *options)[0] == code


def test_json_is_the_document_of_the_contract(run: Run, sick: Path) -> None:
    code, out, _ = run("inspect", sick, "--format", "json")
    document = json.loads(out)
    assert misfits(document, INSPECT) == []
    assert document["exit_code"] == code == 1
    assert document["prefixes"] == ["module."]
    assert document["run"]["epoch"] == 12
    assert document["counts"] == {"tensors": 18, "parameters": 18, "buffers": 0, "elements": 1138}
    optimizer = document["optimizers"][0]
    assert (optimizer["kind"], optimizer["parameters"], optimizer["with_state"]) == (
        "AdamW",
        18,
        18,
    )
    weight = next(one for one in document["tensors"] if one["name"] == "layers.2.0.weight")
    assert weight["key"] == "module.layers.2.0.weight"
    assert (weight["stack"], weight["block"], weight["shape"]) == ("layers", 2, [16, 8])
    assert weight["statistics"]["nan"] == 1
    assert weight["statistics"]["std"] > 0
    slots = [one["slots"] for one in document["tensors"] if one["slots"]]
    assert slots
    assert all(one["exp_avg"]["l2_norm"] > 0 for one in slots)


def test_rows_by_tensor_module_and_finding(run: Run, sick: Path) -> None:
    tensors = [
        json.loads(line) for line in run("inspect", sick, "--format", "jsonl")[1].splitlines()
    ]
    assert len(tensors) == 18
    modules = list(
        csv.DictReader(io.StringIO(run("inspect", sick, "--format", "csv", "--by", "module")[1]))
    )
    assert [row["name"] for row in modules] == [*(f"layers.{i}" for i in range(4)), "层异常"]
    code, out, _ = run("inspect", sick, "--format", "jsonl", "--findings")
    assert code == 1
    assert json.loads(out.splitlines()[0])["code"] == "NUM101"


def test_sort_top_and_grep(run: Run, checkpoint: Path) -> None:
    out = run("inspect", checkpoint, "--format", "csv", "--sort", "l2_norm", "--top", "3")[1]
    norms = [float(row["l2_norm"]) for row in csv.DictReader(io.StringIO(out))]
    assert len(norms) == 3
    assert norms == sorted(norms, reverse=True)
    out = run("inspect", checkpoint, "--format", "csv", "--grep", r"\.1\.\d\.bias$")[1]
    names = [row["name"] for row in csv.DictReader(io.StringIO(out))]
    assert names == ["layers.1.0.bias", "layers.1.1.bias"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--sort", "l2norm"], "l2_norm"),
        (["--grep", "("], "regular expression"),
        (["--select", "NUM999"], "NUM999"),
    ],
)
def test_wrong_values_are_refused_with_advice(
    run: Run, checkpoint: Path, options: list[str], error: str
) -> None:
    code, out, err = run("inspect", checkpoint, *options)
    assert (code, out) == (2, "")
    assert err.startswith("ckptools: SettingsError: ")
    assert error in err


def test_listing_reads_headers_only(run: Run, sick: Path) -> None:
    code, out, _ = run("inspect", sick, "--list", "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert misfits(document, INSPECT) == []
    assert all(one["statistics"] is None for one in document["tensors"])
    assert any("headers only" in reason for reason in document["not_judged"])


def test_listing_weights_imports_no_numpy(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.randn(3, 2), "fc.bias": torch.randn(3)}, path)
    code = (
        "import sys; from ckptools.cli.main import run;"
        f"run(['inspect', '--list', {str(path)!r}]);"
        "print([m for m in ('numpy', 'torch', 'scipy', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("option", [[], ["--format", "json"]])
def test_inspecting_imports_neither_torch_nor_scipy_nor_numba(
    checkpoint: Path, option: list[str]
) -> None:
    code = (
        "import sys; from ckptools.cli.main import run;"
        f"run(['inspect', {str(checkpoint)!r}, *{option!r}]);"
        "print([m for m in ('torch', 'scipy', 'numba', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_flipped_bit_is_found_by_default_and_not_without_checksums(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.pth"
    content = bytearray(checkpoint.read_bytes())
    document = json.loads(run("inspect", checkpoint, "--format", "json")[1])
    assert document["findings"] == [] or document["exit_code"] == 0
    weight = torch.load(checkpoint, weights_only=False)["model_state_dict"][
        "module.layers.0.0.weight"
    ]
    place = bytes(content).index(weight.numpy().tobytes())
    content[place + 101] ^= 1
    damaged.write_bytes(content)
    code, out, _ = run("inspect", damaged)
    assert code == 1
    assert "FIL103" in out
    code, out, _ = run("inspect", damaged, "--no-verify")
    assert code == 0
    assert "checksums were not verified" in out
    assert run("inspect", damaged, "--list", "--verify", "-q")[0] == 1


def test_without_a_name_the_newest_of_the_folder_is_taken(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    for epoch in (2, 10, 9):
        (tmp_path / f"e_{epoch}.pth").write_bytes(checkpoint.read_bytes())
    code, out, err = run("inspect")
    assert code == 0
    assert out.startswith("e_10.pth")
    assert err == "e_10.pth: the newest of 3 here\n"
    assert run("inspect", "-q")[2] == ""


def test_in_an_empty_folder_there_is_nothing_to_inspect(run: Run) -> None:
    code, out, err = run("inspect", "--format", "json")
    assert code == 2
    assert misfits(json.loads(out), ERROR) == []
    assert "holds no checkpoint" in err


def test_measures_stand_in_for_their_checkpoint(run: Run, sick: Path, tmp_path: Path) -> None:
    measures = tmp_path / "measures"
    first = run("inspect", sick, "--save-measures", measures, "--format", "json")
    second = run("inspect", measures, "--format", "json")
    assert first[0] == second[0] == 1
    before, after = (json.loads(out) for _, out, _ in (first, second))
    for field in ("path", "counts", "dtypes", "modules", "run", "optimizers"):
        assert after[field] == before[field], field
    assert [one["statistics"] for one in after["tensors"]] == [
        one["statistics"] for one in before["tensors"]
    ]


def test_the_configuration_file_is_followed_and_the_command_line_adds_to_it(
    run: Run, sick: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "ckptools.toml"
    settings.write_text('baseline = ["NUM101 layers.2.0.weight"]\n')
    code, out, _ = run("inspect", sick, "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert [one["code"] for one in document["accepted"]] == ["NUM101"]
    settings.write_text('select = ["KEY"]\n')
    assert run("inspect", sick, "-q")[0] == 0
    assert run("inspect", sick, "-q", "--select", "NUM")[0] == 1
    settings.write_text('[roles]\n"层异常" = "query"\n')
    rows = json.loads(run("inspect", sick, "--by", "tensor", "--format", "json")[1])["tensors"]
    assert {one["role"] for one in rows if one["module"] == "层异常"} == {"query"}
    settings.write_text('[layouts.mine]\nweights = ["model_state_dict"]\n')
    assert json.loads(run("inspect", sick, "--format", "json")[1])["layout"] == "mine"
    settings.write_text("selekt = []\n")
    code, _, err = run("inspect", sick)
    assert code == 2
    assert "did you mean select" in err


def test_markdown_and_junit(run: Run, sick: Path) -> None:
    code, out, _ = run("inspect", sick, "--format", "markdown")
    assert code == 1
    assert "- **error** NUM101" in out
    assert "| `层异常`" in out
    suite = ET.fromstring(run("inspect", sick, "--format", "junit")[1]).find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "1"


def test_a_report_goes_where_it_is_told_and_never_over_the_checkpoint(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    before = checkpoint.read_bytes()
    code, out, _ = run("inspect", checkpoint, "-o", tmp_path / "r.md", "--format", "markdown")
    assert (code, out) == (0, "")
    assert (tmp_path / "r.md").read_text(encoding="utf-8").startswith("# ")
    code, _, err = run("inspect", checkpoint, "-o", checkpoint)
    assert code == 2
    assert "WouldOverwrite" in err
    assert checkpoint.read_bytes() == before


def test_a_reader_who_has_seen_enough_is_no_error(checkpoint: Path) -> None:
    command = [sys.executable, "-m", "ckptools", "inspect", str(checkpoint), "--format", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()


@pytest.mark.parametrize("name", ["missing.pth", "fifo", "loop", "empty.pth", "null"])
def test_what_is_no_checkpoint_is_refused_in_one_line(run: Run, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "null").symlink_to("/dev/zero")
    code, out, err = run("inspect", name)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert name in err


def test_no_hostile_file_gets_more_than_a_line_or_a_listing(run: Run) -> None:
    """Every file ends in a refusal of one line or in an inert page, and nothing invisible."""
    folder = shared("data/hostile")
    for path in sorted(folder.iterdir()):
        if path.name == "index.tsv":
            continue
        code, out, err = run("inspect", path)
        assert code in (0, 1, 2), path.name
        assert err.count("\n") <= 1, path.name
        assert bool(out) != bool(err), path.name
        assert "CKPTOOLS_DEBUG" not in err, f"{path.name}: {err}"
        assert all(char.isprintable() or char == "\n" for char in out + err), path.name


def test_real_series_open_without_errors(run: Run) -> None:
    for path in sorted(shared("data/series").glob("*/*.pt*")):
        code, out, _ = run("inspect", path, "--format", "json")
        document = json.loads(out)
        assert code == 0, path.name
        assert misfits(document, INSPECT) == [], path.name
        assert document["counts"]["tensors"] in (33, 42)


def test_slow_measuring_is_said_on_stderr(
    run: Run, sick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "COMPILED_ABOVE", 0)
    monkeypatch.setitem(sys.modules, "ckptools.stats.compiled", None)
    _, _, err = run("inspect", sick)
    assert "compiled kernels are not available" in err
    assert "numpy is used" in err
    assert "compiled" not in run("inspect", sick, "-q")[2]
