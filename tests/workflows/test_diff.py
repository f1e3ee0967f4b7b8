from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptools.cli import main as cli
from ckptools.errors import SettingsError
from ckptools.report import media, render
from ckptools.workflows.diff import diff
from ckptools.workflows.inspect import inspect
from tests.builders.pairs import FC1, flip_bit, run
from tests.builders.shared import shared
from tests.builders.small_run import planted

MATCH = {
    "name_a", "name_b", "identical", "relative_change", "cosine", "norm_ratio", "max_abs_change",
    "bound_ratio", "best_match",
}  # fmt: skip
DOCUMENT = {
    "schema", "tool", "a", "b", "relation", "matched", "only_a", "only_b", "run_changes",
    "findings", "crashed", "skipped", "not_judged", "exit_code",
}  # fmt: skip


def kind(a: Path, b: Path) -> str:
    return diff(a, b).change.relation.kind


def weights(path: Path, values: dict[str, torch.Tensor]) -> Path:
    torch.save(values, path)
    return path


def random(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = [f"layers.{i}.{part}.weight" for i in range(3) for part in ("fc1", "fc2")]
    return {name: torch.randn(16, 16, generator=generator) for name in names}


def test_the_document_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    paths = run()
    assert cli.run(["diff", str(paths[4]), str(paths[5]), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= DOCUMENT
    assert found["schema"] == "ckptools.diff/1"
    assert found["a"]["epoch"] == 4
    assert (found["b"]["epoch"], found["b"]["step"]) == (5, 60)
    assert found["relation"]["kind"] == "same-run"
    assert found["relation"]["steps_between"] == 12
    assert "replay_residual" in found["relation"]["evidence"]
    assert all(set(match) >= MATCH for match in found["matched"])
    assert all(0 < match["bound_ratio"] <= 1 for match in found["matched"])
    lr = next(c for c in found["run_changes"] if c["what"] == "optimizers[0].groups[0].lr")
    assert lr["b"] < lr["a"]


def test_a_file_and_itself() -> None:
    found = diff(run()[3], run()[3])
    assert found.change.relation.kind == "identical"
    assert found.change.run_changes == ()
    assert found.findings == ()


def test_the_older_file_second_is_negative_and_proves_nothing() -> None:
    found = diff(run()[5], run()[4])
    assert found.change.relation.steps_between == -12
    assert found.findings == ()


def test_one_step_is_a_direct_successor(tmp_path: Path) -> None:
    from tests.builders.small_run import train

    paths = train(tmp_path, epochs=4, steps=1)
    found = diff(paths[2], paths[3])
    assert found.change.relation.kind == "direct-successor"
    assert found.change.relation.evidence["replay_residual"] <= 1
    assert found.findings == ()


def test_relations_of_bare_weights(tmp_path: Path) -> None:
    base = random(0)
    a = weights(tmp_path / "a.pth", base)
    renamed = {name.replace("layers", "blocks"): value for name, value in base.items()}
    tuned = {name: value + 0.1 * torch.randn(16, 16) for name, value in base.items()}
    assert kind(a, weights(tmp_path / "b.pth", renamed)) == "renamed"
    assert kind(a, weights(tmp_path / "c.pth", tuned)) == "fine-tuned"
    assert kind(a, weights(tmp_path / "d.pth", random(1))) == "unrelated"
    scrambled = {f"x{i}.w": value for i, value in enumerate(reversed(base.values()))}
    found = diff(a, weights(tmp_path / "e.pth", scrambled)).change
    assert found.relation.kind == "renamed"
    assert [match.name_a for match in found.matches] == list(reversed(base))
    assert {match.how for match in found.matches} <= {"rename", "content"}


def test_dtypes_and_nan_are_compared_honestly(tmp_path: Path) -> None:
    base = random(0)
    a = weights(tmp_path / "a.pth", base)
    half = {name: value.to(torch.bfloat16) for name, value in base.items()}
    found = diff(a, weights(tmp_path / "half.pth", half)).change
    assert not any(match.identical for match in found.matches)
    assert max(match.relative_change or 0 for match in found.matches) < 2**-8
    base["layers.0.fc1.weight"][2, 3] = float("nan")
    result = diff(a, weights(tmp_path / "nan.pth", base))
    broken = result.change.matches[0]
    assert (broken.identical, broken.broken, broken.cosine) == (False, 1, pytest.approx(1))
    assert result.exit_code == 1


def test_strided_against_contiguous(tmp_path: Path) -> None:
    value = torch.randn(300, 700)
    a = weights(tmp_path / "a.pth", {"w": value})
    b = weights(tmp_path / "b.pth", {"w": value.T.contiguous().T})
    (match,) = diff(a, b).change.matches
    assert match.identical


def test_shapes_that_differ_are_said(tmp_path: Path) -> None:
    a = weights(tmp_path / "a.pth", {"w": torch.ones(3), "v": torch.ones(2)})
    b = weights(tmp_path / "b.pth", {"w": torch.ones(4), "v": torch.ones(2), "x": torch.ones(1)})
    found = diff(a, b)
    assert found.change.only_b == ("x",)
    assert any("shapes differ" in reason for reason in found.outcome.not_judged)


@pytest.mark.parametrize("medium", media.names())
def test_every_medium(medium: str, tmp_path: Path) -> None:
    sick = planted(run()[5], tmp_path / "sick.pth", flip_bit(26))
    result = diff(run()[4], sick)
    assert result.exit_code == 1
    assert FC1 in render(result, medium)


def test_cosines_of_modules_are_those_of_their_vectors() -> None:
    found = diff(run()[1], run()[4])
    states = [torch.load(run()[epoch], weights_only=True)["model"] for epoch in (1, 4)]
    names = [name for name in states[0] if name.startswith("blocks.1.")]
    a, b = (np.concatenate([s[n].double().numpy().ravel() for n in names]) for s in states)
    row = next(row for row in found.modules() if row["name"] == "blocks.1")
    assert row["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert row["relative_change"] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a))


MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.ModuleDict({"second": nn.Linear(8, 8), "first": nn.Linear(8, 8)})
"""


def test_a_model_has_the_last_word_for_names(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    torch.manual_seed(0)
    second, first = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    parameters = [*second.parameters(), *first.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    paths = []
    for step in range(1, 12):
        optimizer.zero_grad()
        x = torch.randn(4, 8)
        (first(torch.relu(second(x))) - x).square().mean().backward()
        optimizer.step()
        if step in (1, 11):
            held = {f"first.{n}": p.data for n, p in first.named_parameters()}
            held |= {f"second.{n}": p.data for n, p in second.named_parameters()}
            paths.append(tmp_path / f"step_{step}.pth")
            state = {"model": held, "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, paths[-1])
    found = diff(*paths, model=f"{tmp_path / 'net.py'}:build").change.b.optimizers[0]
    assert found.matched_by == "model"
    truth = ["second.weight", "second.bias", "first.weight", "first.bias"]
    assert [state.name for state in found.states] == truth
    alone = inspect(paths[1], model=f"{tmp_path / 'net.py'}:build").document()["optimizers"][0]
    assert alone["matched_by"] == "model"
    with pytest.raises(SettingsError):
        diff(*paths, model="no_such_module:build")


def test_the_averaged_weights_of_one_file(tmp_path: Path) -> None:
    raw = random(0)
    ema = {name: value * 0.999 for name, value in raw.items()}
    ema["layers.1.fc1.weight"] = -raw["layers.1.fc1.weight"]
    path = tmp_path / "both.pth"
    torch.save({"model": raw, "ema": ema}, path)
    found = diff(path)
    assert found.change.relation.kind == "same-run"
    assert (found.change.a.path, found.change.b.path) == (f"{path}:model", f"{path}:ema")
    assert [f.target for f in found.findings if f.code == "CHG203"] == ["layers.1.fc1.weight"]
    assert found.change.matches[0].norm_ratio == pytest.approx(0.999)
    alone = weights(tmp_path / "alone.pth", raw)
    with pytest.raises(SettingsError):
        diff(alone)


@pytest.mark.parametrize("measured", ["a", "b", "both"])
def test_measurements_stand_in_for_a_file(measured: str, tmp_path: Path) -> None:
    paths = {"a": run()[3], "b": run()[4]}
    for name in ("a", "b"):
        if measured in (name, "both"):
            kept = tmp_path / f"{name}.measures"
            inspect(paths[name], save_measures=kept)
            paths[name] = kept
    found = diff(paths["a"], paths["b"])
    plain = diff(run()[3], run()[4])
    assert found.exit_code == 0
    assert found.change.relation.kind == "same-run"
    assert found.change.relation.steps_between == 12
    for one, other in zip(found.change.matches, plain.change.matches, strict=True):
        assert (one.name_b, one.identical) == (other.name_b, other.identical)
        assert one.norm_ratio == pytest.approx(other.norm_ratio)
        assert one.spread_change is not None
        assert 0 < one.spread_change < 1
    assert any("no weights" in reason for reason in found.outcome.not_judged)
    same = diff(paths["a"], paths["a"]).change
    assert same.relation.kind == "identical"


def test_a_real_run_by_its_ids() -> None:
    folder = shared("data/series/cgcnn")
    found = diff(folder / "model_best.pth.tar", folder / "checkpoint.pth.tar")
    assert found.change.relation.kind == "same-run"
    assert found.change.relation.evidence["same_ids"] is True
    assert [f for f in found.findings if f.confidence != "hint"] == []


def test_what_stood_still_is_told(tmp_path: Path) -> None:
    base = random(0)
    tuned = {name: value + 0.1 * torch.randn(16, 16) for name, value in base.items()}
    for name in base:
        if name.startswith("layers.1."):
            tuned[name] = base[name]
    found = diff(weights(tmp_path / "a.pth", base), weights(tmp_path / "b.pth", tuned))
    assert "layers.1.*" in render(found, "table")
