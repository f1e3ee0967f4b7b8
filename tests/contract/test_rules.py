"""What every rule must fulfil, run over the registry.

A rule in ``ckptools/rules/<family>/<rule>.py`` has its cases in
``tests/rules/<family>/test_<rule>.py``: the dicts ``FIRES_ON`` and ``SILENT_ON`` of functions
without parameters that give evidence.  Beside those it stays silent on every healthy builder.
"""

from __future__ import annotations

import ast
import importlib.util
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import click
import numpy as np
import pytest

import ckptools
from ckptools.cli.main import Commands
from ckptools.rules import judge, rules
from ckptools.rules.file.faults import KINDS
from ckptools.rules.registry import Rule
from ckptools.types.evidence import Evidence
from ckptools.types.measurements import Measurements, Statistics
from tests.builders.evidence import Builder
from tests.builders.healthy import HEALTHY, transformer

RULES = {rule.code: rule for rule in rules}
#: every command that there is: advice must never lead nowhere
COMMANDS = set(Commands().list_commands(click.Context(click.Command("ckptools"))))


@cache
def healthy(name: str) -> Evidence:
    return HEALTHY[name]()


def cases(rule: Rule, kind: str) -> dict[str, Callable[[], Evidence]]:
    """Return the cases of a kind; a missing module has none, about which a test complains."""
    _, _, family, name = rule.check.__module__.split(".")
    module = f"tests.rules.{family}.test_{name}"
    if importlib.util.find_spec(module) is None:
        return {}
    return dict(getattr(importlib.import_module(module), kind))


def each_case(kind: str) -> list[object]:
    return [
        pytest.param(rule, build, id=f"{rule.code}-{name}")
        for rule in RULES.values()
        for name, build in cases(rule, kind).items()
    ]


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_has_cases_of_both_kinds(rule: Rule) -> None:
    assert cases(rule, "FIRES_ON")
    assert cases(rule, "SILENT_ON")


@pytest.mark.parametrize(("rule", "build"), each_case("FIRES_ON"))
def test_fires_on_its_disease(rule: Rule, build: Callable[[], Evidence]) -> None:
    judgement = judge(build(), select=[rule.code])
    assert not judgement.crashed
    assert not judgement.skipped
    assert {finding.code for finding in judgement.findings} == {rule.code}
    for finding in judgement.findings:
        assert finding.target
        assert "\n" not in finding.message
        assert finding.advice is not None
        assert shlex.split(finding.advice)[0] == "ckptools"
        assert shlex.split(finding.advice)[1] in COMMANDS
        assert not (finding.confidence == "hint" and finding.severity == "error")


@pytest.mark.parametrize(("rule", "build"), each_case("SILENT_ON"))
def test_silent_on_its_near_misses(rule: Rule, build: Callable[[], Evidence]) -> None:
    judgement = judge(build(), select=[rule.code])
    assert not judgement.crashed
    assert judgement.findings == ()


@pytest.mark.parametrize("name", HEALTHY)
def test_every_rule_is_silent_on_health(name: str) -> None:
    judgement = judge(healthy(name))
    assert judgement.crashed == ()
    assert [(finding.code, finding.target) for finding in judgement.findings] == []


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_never_crashes_on_nothing(rule: Rule) -> None:
    judgement = judge(Evidence(), select=[rule.code])
    assert not judgement.crashed
    assert judgement.findings == ()


def test_each_family_lies_in_one_folder() -> None:
    folders: dict[str, set[str]] = {}
    for rule in RULES.values():
        folders.setdefault(rule.family, set()).add(rule.check.__module__.rpartition(".")[0])
    assert all(len(places) == 1 for places in folders.values()), folders


def test_one_rule_a_file() -> None:
    modules = [rule.check.__module__ for rule in RULES.values()]
    assert len(set(modules)) == len(modules)


def test_a_hint_says_that_it_was_not_measured_or_gives_the_rate() -> None:
    for rule in RULES.values():
        text = rule.explanation.sections["False alarms"]
        if rule.confidence == "hint":
            assert "Not yet measured; hint" in text or "%" in text, rule.code


def fault_kinds() -> dict[str, str]:
    """Return every kind of fault that our own readers spell, with the file that does."""
    kinds = {}
    for folder in ("sources", "formats", "layouts"):
        for path in (Path(ckptools.__file__).parent / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for word in _kinds_in(node):
                    kinds[word] = path.name
    return kinds


def _kinds_in(node: ast.AST) -> list[str]:
    """Return the kinds that a call gives to a fault, or a parameter called kind defaults to."""
    if isinstance(node, ast.FunctionDef):
        named = node.args.args[len(node.args.args) - len(node.args.defaults) :]
        pairs = zip(named, node.args.defaults, strict=True)
        candidates = [default for argument, default in pairs if argument.arg == "kind"]
    elif isinstance(node, ast.Call):
        called = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
        adds = called in ("Fault", "problem") or (called == "add" and len(node.args) >= 3)
        candidates = node.args[:1] if adds else []
        candidates += node.args[1:2] if called == "Unfit" else []
        if adds or called == "Unfit":
            candidates += [keyword.value for keyword in node.keywords if keyword.arg == "kind"]
        if ast.unparse(node.func) == "self.wrong.append" and isinstance(node.args[0], ast.Tuple):
            candidates += node.args[0].elts[1:2]
    else:
        return []
    choices = [one for one in candidates if isinstance(one, ast.IfExp)]
    candidates += [arm for one in choices for arm in (one.body, one.orelse)]
    constants = [value for value in candidates if isinstance(value, ast.Constant)]
    return [str(constant.value) for constant in constants if isinstance(constant.value, str)]


def test_every_kind_of_fault_belongs_to_a_rule() -> None:
    kinds = fault_kinds()
    assert "truncated" in kinds
    assert set(kinds) - set(KINDS) == set(), {kind: kinds[kind] for kind in set(kinds) - set(KINDS)}


def test_no_rule_waits_for_a_fault_that_nobody_reports() -> None:
    assert set(KINDS) <= set(fault_kinds())


def everything(value: float) -> Evidence:
    weights = {name: np.full_like(values, value) for name, values in transformer().items()}
    return (
        Builder(weights, spectrum=np.isfinite(value)).add_adam(weights_as_slots(weights)).evidence()
    )


def weights_as_slots(weights: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    return {name: {"exp_avg": v, "exp_avg_sq": v} for name, v in weights.items()}


def partly_measured() -> Evidence:
    whole = healthy("trained_transformer")
    assert whole.measurements is not None
    some = dict(list(whole.measurements.tensors.items())[::2])
    return replace(whole, measurements=Measurements(some))


def without_values() -> Evidence:
    whole = healthy("trained_transformer")
    assert whole.measurements is not None
    nothing = {
        key: Statistics(numel=one.numel, finite=0, complete=False)
        for key, one in whole.measurements.tensors.items()
    }
    return replace(whole, measurements=Measurements(nothing))


ODD = {
    "nothing_but_nan": lambda: everything(np.nan),
    "nothing_but_infinity": lambda: everything(-np.inf),
    "nothing_but_zero": lambda: everything(0.0),
    "nothing_but_the_largest": lambda: everything(float(np.finfo(np.float32).max)),
    "no_tensors": lambda: Builder({}).evidence(),
    "no_sets": lambda: Builder().evidence(),
    "one_scalar": lambda: Builder({"a": np.array(2.0)}).evidence(),
    "empty_tensors": lambda: Builder({"a.0.w": np.zeros((0, 3)), "b": np.zeros(0)}).evidence(),
    "partly_measured": partly_measured,
    "without_values": without_values,
}


@pytest.mark.parametrize("name", ODD)
def test_never_crashes_on_odd_evidence(name: str) -> None:
    with np.errstate(all="ignore"):
        judgement = judge(ODD[name]())
    assert judgement.crashed == ()
