"""The fields that scripts rely on: every document has them, with these types; more may be there.

A tree names fields; ``[tree]`` is a list whose members all fit, ``{str: tree}`` a mapping with free
keys, ``OPTIONAL(tree)`` may be null, a type is that type.  Numbers may be the strings of the
non-finite ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckptools.cli import main as cli
from ckptools.report import render
from ckptools.rules import judge
from ckptools.types.blocks import Result
from ckptools.types.checkpoint import RunState
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Crashed, Finding, Judgement, Skipped
from ckptools.workflows.inspect import Inspection
from ckptools.workflows.outcome import Outcome
from tests.builders import healthy
from tests.builders.evidence import Builder
from tests.builders.training_records import RECORD


@dataclass(frozen=True)
class OPTIONAL:
    tree: Any


NUMBER = float
FINDING = {
    "code": str,
    "name": str,
    "severity": str,
    "confidence": str,
    "target": str,
    "message": str,
    "evidence": dict,
    "limit": OPTIONAL(NUMBER),
    "advice": OPTIONAL(str),
}
SHARED = {
    "schema": str,
    "tool": {"version": str},
    "findings": [FINDING],
    "crashed": [{"code": str, "name": str, "error": str}],
    "skipped": [{"code": str, "name": str, "reason": str}],
    "not_judged": [str],
    "exit_code": int,
}
STATISTICS = {
    **dict.fromkeys(("numel", "zeros", "nan", "inf", "subnormal"), int),
    **dict.fromkeys(
        (
            "mean",
            "std",
            "rms",
            "l2_norm",
            "min",
            "max",
            "abs_max",
            "kurtosis",
            "p01",
            "p50",
            "p99",
        ),
        OPTIONAL(NUMBER),
    ),
}
GROUP = {
    "index": int,
    "name": OPTIONAL(str),
    "lr": OPTIONAL(NUMBER),
    "betas": OPTIONAL([NUMBER]),
    "eps": OPTIONAL(NUMBER),
    "weight_decay": OPTIONAL(NUMBER),
    "parameters": int,
}
OPTIMIZER = {
    "kind": str,
    "set": OPTIONAL(str),
    "parameters": int,
    "with_state": int,
    "without_state": [str],
    "steps": OPTIONAL({"min": NUMBER, "max": NUMBER}),
    "groups": [GROUP],
    "matched_by": str,
    "named": {"sure": int, "by_order": int, "ambiguous": int},
    "ambiguous": [str],
    "gradient_norm": OPTIONAL(NUMBER),
}
MODULE = {
    "name": str,
    "set": str,
    "tensors": int,
    "elements": int,
    **dict.fromkeys(("l2_norm", "rms", "abs_max"), OPTIONAL(NUMBER)),
    **dict.fromkeys(("nan", "inf"), OPTIONAL(int)),
}
TENSOR = {
    "name": str,
    "key": str,
    "set": str,
    "stack": OPTIONAL(str),
    "block": OPTIONAL(int),
    "role": OPTIONAL(str),
    "kind": str,
    "shape": [int],
    "dtype": str,
    "storage": OPTIONAL(str),
    "statistics": OPTIONAL(STATISTICS),
    "slots": {str: {"l2_norm": OPTIONAL(NUMBER)}},
    "next_update_ratio": OPTIONAL(NUMBER),
}
INSPECT = SHARED | {
    "path": str,
    "format": str,
    "layout": str,
    "size_bytes": int,
    "prefixes": [str],
    "run": {"epoch": OPTIONAL(int), "step": OPTIONAL(int)},
    "sets": [str],
    "counts": dict.fromkeys(("tensors", "parameters", "buffers", "elements"), int),
    "dtypes": {str: int},
    "globals": [{"name": str, "grade": str}],
    "optimizers": [OPTIMIZER],
    "modules": [MODULE],
    "tensors": [TENSOR],
}
ONSET = {"code": str, "target": str, "message": str, "epoch": OPTIONAL(NUMBER)}
LOG = SHARED | {
    "sources": [str],
    "records": int,
    "segments": int,
    "keys": [str],
    "losses": OPTIONAL(
        {
            "components": {str: NUMBER},
            "layers": OPTIONAL([NUMBER]),
            "residual": NUMBER,
            "printed": [str],
            "assumes": OPTIONAL(str),
            "unique": bool,
        }
    ),
    "counterfactuals": [{"layers": [NUMBER], "total": NUMBER}],
    "split": OPTIONAL(
        dict.fromkeys(("total_before", "total_after", "by_weights", "by_model"), NUMBER)
    ),
    "warnings": OPTIONAL(
        {
            "count": int,
            "steps": int,
            "interval": OPTIONAL(int),
            "share_of_checks": OPTIONAL(NUMBER),
        }
    ),
    "clipping": OPTIONAL({"limit": NUMBER, "smallest_ratio": NUMBER, "saturated": bool}),
}
BESIDE = {
    "checkpoints": [
        {
            "path": str,
            "epoch": OPTIONAL(NUMBER),
            "step": OPTIONAL(int),
            "by": OPTIONAL(str),
            "log_epoch": OPTIONAL(NUMBER),
            "log_step": OPTIONAL(int),
            "values": {str: NUMBER},
        }
    ],
    "onsets": {
        "log": OPTIONAL(ONSET),
        "checkpoints": OPTIONAL(ONSET),
        "order": str,
        "last_before": OPTIONAL(str),
    },
}
RECEIPT = SHARED | {
    "operation": str,
    "parameters": dict,
    "dry_run": bool,
    "source": {"path": str, "sha256": OPTIONAL(str)},
    "output": {"path": str, "sha256": OPTIONAL(str)},
    "changes": [
        {
            "tensor": str,
            "action": str,
            "initializer": OPTIONAL(str),
            "before": OPTIONAL(dict),
            "after": OPTIONAL(dict),
            "slots": OPTIONAL({str: str}),
        }
    ],
    "untouched": int,
    "verified": bool,
    "undo": OPTIONAL(str),
}
ERROR = {
    "schema": str,
    "error": str,
    "message": str,
    "where": OPTIONAL(str),
    "next": OPTIONAL(str),
    "exit_code": int,
}


def misfits(value: Any, tree: Any, where: str = "$") -> list[str]:
    """Return every place where ``value`` does not fit ``tree``."""
    if isinstance(tree, OPTIONAL):
        return [] if value is None else misfits(value, tree.tree, where)
    if isinstance(tree, list):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [
            found
            for index, item in enumerate(value)
            for found in misfits(item, tree[0], f"{where}[{index}]")
        ]
    if isinstance(tree, dict):
        return _misfits_of_mapping(value, tree, where)
    number = isinstance(value, (int, float)) or value in ("nan", "inf", "-inf")
    fits = number if tree is NUMBER else isinstance(value, tree)
    return (
        []
        if fits and not (isinstance(value, bool) and tree is not bool)
        else [f"{where}: {value!r} is no {tree.__name__}"]
    )


def _misfits_of_mapping(value: Any, tree: dict[Any, Any], where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: no object"]
    if str in tree:
        return [
            found
            for key, item in value.items()
            for found in misfits(item, tree[str], f"{where}.{key}")
        ]
    missing = [f"{where}.{key}: missing" for key in tree if key not in value]
    return missing + [
        found
        for key, part in tree.items()
        if key in value
        for found in misfits(value[key], part, f"{where}.{key}")
    ]


def inspection(evidence: Evidence, **outcome: Any) -> Inspection:
    assert evidence.checkpoint is not None
    judged = Outcome(judge(evidence), ("a part: for a reason",), **outcome)
    return Inspection(evidence.checkpoint, evidence.measurements, judged)


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(render(result, "json"))
    return found


def sick() -> Evidence:
    weights = healthy.transformer()
    weights["decoder.layers.2.linear1.weight"][3, 5] = np.nan
    weights["decoder.layers.3.linear1.weight"][:] = np.inf
    run = RunState(epoch=12, step=768, scheduler={"last_epoch": 12})
    builder = Builder(weights, run=run, prefixes=("module.",), spectrum=True)
    return builder.add_adam(healthy.adam(weights)).evidence()


CASES: dict[str, Callable[[], Evidence]] = {
    "sick": sick,
    "trained": healthy.trained_transformer,
    "epoch zero": healthy.epoch_zero,
    "several sets": healthy.adversarial_pair,
    "integers": healthy.convolutional,
    "listed": lambda: replace(sick(), measurements=None),
}


@pytest.mark.parametrize("case", CASES)
def test_inspect(case: str) -> None:
    found = document(inspection(CASES[case]()))
    assert misfits(found, INSPECT) == []
    assert found["schema"] == "ckptools.inspect/1"


def test_listing_is_the_same_document_without_statistics() -> None:
    measured = document(inspection(sick()))
    listed = document(inspection(replace(sick(), measurements=None)))
    assert set(measured) == set(listed)
    assert [set(one) for one in measured["tensors"]] == [set(one) for one in listed["tensors"]]
    assert all(one["statistics"] is None for one in listed["tensors"])


def test_a_crashed_rule_is_no_clean_bill() -> None:
    evidence = healthy.trained_transformer()
    assert evidence.checkpoint is not None
    judgement = Judgement(
        findings=(Finding("NUM101", "x", "error", "proof", "t", "m"),),
        skipped=(Skipped("NUM102", "y", "because"),),
        crashed=(Crashed("NUM103", "z", "ValueError: no"),),
    )
    result = Inspection(evidence.checkpoint, evidence.measurements, Outcome(judgement))
    found = document(result)
    assert misfits(found, INSPECT | ERROR) == []
    assert result.exit_code == found["exit_code"] == 2
    assert found["crashed"][0]["code"] == "NUM103"


@pytest.mark.parametrize(
    ("severity", "fail_on", "code"),
    [
        ("error", "error", 1),
        ("warning", "error", 0),
        ("warning", "warning", 1),
        ("note", "warning", 0),
        ("error", "never", 0),
        (None, "warning", 0),
    ],
)
def test_exit_codes(severity: str | None, fail_on: str, code: int) -> None:
    found = (Finding("NUM101", "x", severity, "proof", "t", "m"),) if severity else ()
    assert Outcome(Judgement(found), fail_on=fail_on).exit_code == code
    examined_nothing = Outcome(Judgement(found), fail_on=fail_on, nothing_examined="no tensors")
    assert examined_nothing.exit_code == (code or 2)


@pytest.mark.parametrize("text", [RECORD, "Epoch 1\nloss: 3.0\n"])
def test_log(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "record.md"
    path.write_text(text, encoding="utf-8")
    assert cli.run(["log", str(path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert misfits(found, LOG) == []
    assert found["schema"] == "ckptools.log/1"


def test_a_log_with_checkpoints(
    lanes_run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "train.log"
    log.write_text((lanes_run / "train.log").read_text("utf-8"), encoding="utf-8")
    folder = str(lanes_run)
    assert cli.run(["log", str(log), "--checkpoints", folder, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert misfits(found, LOG | BESIDE) == []
    assert [one["epoch"] for one in found["checkpoints"]] == [0, 1, 2, 3]


def test_another_language_changes_no_field_and_no_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "record.md"
    path.write_text(RECORD, encoding="utf-8")
    spoken = []
    for lang in ("en", "zh"):
        cli.run(["log", str(path), "--format", "json", "--lang", lang])
        spoken.append(json.loads(capsys.readouterr().out))
    english, chinese = spoken
    assert misfits(chinese, LOG) == []
    for one, other in zip(english["findings"], chinese["findings"], strict=True):
        assert one["message"] != other["message"]
        assert {**one, "message": ""} == {**other, "message": ""}
    rest = [{k: v for k, v in one.items() if k != "findings"} for one in spoken]
    assert rest[0] == rest[1]


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_receipts(options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "checkpoint.pth"
    weights = {"fc.weight": torch.randn(3, 2), "fc.bias": torch.randn(3)}
    torch.save({"epoch": 3, "state_dict": weights}, source)
    assert cli.run(["convert", str(source), "--format", "json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert misfits(found, RECEIPT) == []
    assert found["schema"] == "ckptools.receipt/1"
    assert found["dry_run"] is bool(options)
    assert found["verified"] is not bool(options)


def test_errors(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    assert cli.run(["inspect", str(tmp_path / "missing.pth"), "--format", "json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert misfits(found, ERROR) == []
    assert found["schema"] == "ckptools.error/1"


def test_the_checker_sees_what_is_wrong() -> None:
    assert misfits({"a": 1}, {"a": str}) == ["$.a: 1 is no str"]
    assert misfits({}, {"a": str}) == ["$.a: missing"]
    assert misfits({"a": [1, "nan", None]}, {"a": [NUMBER]}) == ["$.a[2]: None is no float"]
    assert misfits({"a": {"x": True}}, {"a": {str: int}}) == ["$.a.x: True is no int"]
    assert misfits({"a": None}, {"a": OPTIONAL(int)}) == []
