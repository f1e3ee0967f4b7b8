"""``ckptools rerun`` as a user calls it: trainings, their engines, and what is recorded of them."""

from __future__ import annotations

import functools
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.cli import main as cli
from ckptools.cli import progress
from ckptools.rerun.task import load_task
from ckptools.rerun.trials import Store
from tests.builders.rerun_tasks import TASK, regression, train, write_task

Asked = list[str]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """The command on a healthy checkpoint, with the one before it."""
    spec, earlier, later = regression(tmp_path)
    words = ["rerun", later, "--task", spec, "--earlier", earlier, "--trials", tmp_path / "trials"]
    return [str(word) for word in words]


def document(capsys: pytest.CaptureFixture[str], asked: Asked, *more: str) -> dict[str, Any]:
    code = cli.run([*asked, *more, "--format", "json", "-q"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == code
    return found


def refusal(capsys: pytest.CaptureFixture[str], asked: Asked, *more: str) -> str:
    """Return the line in which a command is refused, with exit code 2."""
    assert cli.run([*asked, *more, "-q"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = (one for one in said.err.splitlines() if one.startswith("ckptools"))
    assert "Traceback" not in said.err
    return line


def trials(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial for arm in found["arms"] for trial in arm["trials"]]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_a_trial_was_is_recorded(
    precision: str, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeds, versions, digests of batches and hardware; here in a lower precision."""
    found = document(capsys, asked, "--autocast", precision, "--device", "cpu")
    assert found["decision"] == "refuted"
    recorded = trials(found)
    machine = recorded[0]["machine"]
    assert machine.keys() >= {"hardware", "python", "torch", "numpy", "ckptools"}
    assert (machine["device"], machine["autocast"]) == ("cpu", precision)
    assert machine["torch"] == torch.__version__
    assert all(trial["machine"] == machine for trial in recorded)
    assert recorded[0]["seed"] == 0
    by_seed = {(trial["seed"], trial["first_batch"]) for trial in recorded}
    assert len(by_seed) == len({trial["seed"] for trial in recorded})
    assert all(len(trial["batches"]) == 64 for trial in recorded)
    plain = document(capsys, asked)
    assert trials(plain)[0]["loss"] != recorded[0]["loss"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU is there")
def test_a_gpu_that_is_not_there_is_one_line(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, asked, "--device", "cuda")
    assert "cannot use the device 'cuda'" in line
    assert "--device cpu always works" in line


def test_a_design_that_cannot_decide_is_one_line(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, asked, "--arm", "optimizer-reset", "--seeds", "1")
    assert "this design cannot decide" in line
    assert "give at least 2 seeds" in line


def test_trials_on_other_batches_are_refused(
    tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = TASK.replace("            x = torch.randn(16, 4)", "            x = rand(16, 4)")
    text = drawn.replace(
        "from helper import SCALE\n",
        "from helper import SCALE\nfree = torch.Generator()\nfree.seed()\n"
        "rand = lambda *shape: torch.randn(*shape, generator=free)\n",
    )
    spec = f"{write_task(tmp_path, text, 'free.py')}:Regression"
    (later,) = train(load_task(spec), tmp_path, (60,))
    words = ["rerun", str(later), "--task", spec, "--trials", str(tmp_path / "t")]
    arms = ["--arm", "optimizer-reset", "--steps", "2", "--seeds", "2", "--engine", "here"]
    line = refusal(capsys, words, *arms)
    assert "saw different batches" in line
    assert "let batches(seed) depend on nothing but the seed" in line


def test_after_an_interrupt_finished_trials_are_not_repeated(
    asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Store.put

    def interrupted(*arguments: Any) -> None:
        put(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", interrupted)
        assert cli.run([*asked, "-q"]) == 130
        assert "interrupted" in capsys.readouterr().err
    found = document(capsys, asked)
    assert found["rungs"][-1]["evidence"]["kept"] == 1
    assert document(capsys, asked)["rungs"][-1]["evidence"]["kept"] == len(trials(found))


class Terminal(io.StringIO):
    """A stderr that says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("engine", ["here", "pool"])
def test_progress_says_how_long_the_rest_will_take(
    engine: str, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    eager = functools.partial(progress.tqdm, mininterval=0)  # the trials may be over in no time
    monkeypatch.setattr(progress, "tqdm", eager)
    arms = ["--arm", "optimizer-reset", "--steps", "2", "--seeds", "2"]
    words = [one for one in asked if one != "--earlier" and not one.endswith("step_40.pth")]
    assert cli.run([*words, *arms, "--engine", engine]) == 3
    drawn = terminal.getvalue()
    assert "trials" in drawn
    gone_and_left = re.compile(r"[1-4]/4 \[\d\d:\d\d<\d\d:\d\d")  # two arms with two seeds
    assert gone_and_left.search(drawn)


def test_without_a_terminal_there_is_no_bar(
    asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    cli.run(asked)
    assert "trials" not in capsys.readouterr().err.replace("/trials", "")


@pytest.mark.slow
def test_a_cluster_that_lacks_what_is_asked_for_is_one_line(
    asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.init(num_cpus=1, log_to_driver=False, include_dashboard=False)
    try:
        words = [one for one in asked if one != "--earlier" and not one.endswith("step_40.pth")]
        arms = ["--arm", "lr=x0.1 gpus=4", "--steps", "2", "--seeds", "2", "--engine", "ray"]
        line = refusal(capsys, words, *arms)
    finally:
        ray.shutdown()
    assert "asks for 4 GPU, the cluster has 0" in line
    assert "arm lr=x0.1 gpus=4" in line


@pytest.mark.slow
def test_two_ranks_train_together(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """They share the batches, and stop at the same step, as the first of them decides."""
    found = document(capsys, asked, "--engine", "torchrun", "--workers", "2")
    assert found["decision"] == "refuted"
    together = {arm["name"]: arm["trials"] for arm in found["arms"]}
    assert together["as-is"][-1]["steps"] < together["earlier"][-1]["steps"]
    alone = document(capsys, [*asked, "--trials", str(Path(asked[-1]) / "alone")])
    assert together["earlier"][0]["batches"] != trials(alone)[0]["batches"]  # two a step
