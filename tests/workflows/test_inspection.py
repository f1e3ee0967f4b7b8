from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckptools.errors import SettingsError
from ckptools.report import render
from ckptools.report.fit import display_width
from ckptools.rules import judge
from ckptools.types.checkpoint import ParameterGroup, RunState
from ckptools.types.container import GlobalUse
from ckptools.types.evidence import Evidence
from ckptools.types.measurements import Measurements, SlotMeasures, Statistics
from ckptools.workflows.inspect import Inspection, Shown, inspect
from ckptools.workflows.inspection import optimizer_document, tied
from ckptools.workflows.outcome import Outcome
from ckptools.workflows.spread import BARS, Spread
from tests.builders import healthy
from tests.builders.evidence import Builder, statistics_of


def inspection(evidence: Evidence, *, rules: bool = True, **shown: Any) -> Inspection:
    assert evidence.checkpoint is not None
    judgement = judge(evidence, select=() if rules else ("NUM101",))
    outcome = Outcome(judgement, evidence.checkpoint.not_judged, rules_run=34)
    return Inspection(evidence.checkpoint, evidence.measurements, outcome, Shown(**shown))


def small(**parts: Any) -> Inspection:
    rng = np.random.default_rng(0)
    weights = {
        "encoder.layers.0.fc.weight": rng.normal(size=(4, 3)),
        "encoder.layers.0.fc.bias": np.array([1.0, np.nan, np.inf, 0.0]),
        "encoder.layers.1.fc.weight": rng.normal(size=(4, 3)) * 10,
        "encoder.layers.1.fc.bias": np.zeros(4),
        "head.weight": rng.normal(size=(2, 4)),
    }
    return inspection(Builder(weights, prefixes=("module.",)).evidence(), **parts)


def text(result: Inspection) -> str:
    page = render(result, "table")
    assert max(map(display_width, page.splitlines())) <= 100
    return page


class TestRows:
    def test_a_module_is_its_tensors_taken_together(self) -> None:
        result = small()
        first = result.modules()[0].document()
        values = np.concatenate(
            [np.random.default_rng(0).normal(size=12).astype(np.float32), [1.0, 0.0]]
        )
        assert first["name"] == "encoder.layers.0"
        assert (first["tensors"], first["elements"]) == (2, 16)
        assert (first["nan"], first["inf"], first["zeros"]) == (1, 1, 1)
        assert first["l2_norm"] == pytest.approx(np.linalg.norm(values))
        assert first["rms"] == pytest.approx(np.sqrt(np.mean(values**2)))
        assert first["abs_max"] == pytest.approx(np.abs(values).max())

    def test_findings_are_counted_where_they_are(self) -> None:
        rows = {row.name: row.findings for row in small().modules()}
        assert rows["encoder.layers.0"] >= 1
        assert rows["head"] == 0

    @pytest.mark.parametrize(
        ("depth", "names"),
        [
            (1, ["encoder", "head"]),
            (2, ["encoder.layers", "head.weight"]),
            (3, ["encoder.layers.0", "encoder.layers.1", "head.weight"]),
        ],
    )
    def test_depth_groups_by_the_beginning_of_names(self, depth: int, names: list[str]) -> None:
        assert [row.name for row in small(depth=depth).modules()] == names

    def test_grep_chooses_by_name_or_key_and_leaves_the_counts(self) -> None:
        assert [row.tensor.name for row in small(grep=r"1\.fc\.b").tensors()] == [
            "encoder.layers.1.fc.bias"
        ]
        assert len(small(grep=r"^module\.head").tensors()) == 1
        result = small(grep="head")
        assert result.counts()["tensors"] == 5
        assert len(result.document()["tensors"]) == 1
        assert len(result.findings) == len(small().findings)

    def test_numbers_fall_names_rise_and_what_is_missing_comes_last(self) -> None:
        falling = [row.tensor.name for row in small(sort="abs_max").tensors()]
        assert falling[0] == "encoder.layers.1.fc.weight"
        rising = [row.tensor.name for row in small(sort="name").tensors()]
        assert rising == sorted(rising)
        listed = small(sort="abs_max")
        listed = replace(listed, measurements=None)
        assert [row.tensor.name for row in listed.tensors()] == [
            row.tensor.name for row in replace(small(), measurements=None).tensors()
        ]
        kurtosis = [row.statistics for row in small(sort="kurtosis").tensors()]
        assert kurtosis[-1] is not None
        assert kurtosis[-1].kurtosis is None

    def test_an_unknown_column_names_the_nearest(self) -> None:
        with pytest.raises(SettingsError, match=r"'absmax'.*abs_max"):
            small(sort="absmax").tensors()

    def test_top_cuts_rows_and_documents_and_zero_is_all(self) -> None:
        assert len(small(top=2).rows()) == len(small(top=2).document()["tensors"]) == 2
        assert len(small(top=0).rows()) == 5

    def test_rows_are_flat_and_alike(self) -> None:
        rows = small().rows()
        assert all(set(row) == set(rows[0]) for row in rows)
        flat = [value for row in rows for key, value in row.items() if key != "shape"]
        assert not any(isinstance(value, (dict, list)) for value in flat)
        assert [row["name"] for row in small(by="module").rows()] == [
            "encoder.layers.0",
            "encoder.layers.1",
            "head",
        ]

    def test_tied_tensors_are_found_by_their_elements(self) -> None:
        weights = {"a.weight": np.ones((3, 2)), "b.weight": np.ones((3, 2)), "c.bias": np.ones(3)}
        evidence = Builder(weights, tied={"b.weight": "a.weight"}).evidence()
        assert evidence.checkpoint is not None
        assert [[one.name for one in group] for group in tied(evidence.checkpoint)] == [
            ["a.weight", "b.weight"]
        ]
        assert "a.weight = b.weight" in text(inspection(evidence))


class TestOptimizer:
    def test_slots_stand_beside_their_parameter(self) -> None:
        evidence = healthy.trained_transformer()
        rows = inspection(evidence).rows()
        assert all(row["exp_avg_l2_norm"] > 0 for row in rows)

    def test_the_gradient_norm_is_taken_over_all_parameters(self) -> None:
        evidence = healthy.trained_transformer()
        assert evidence.checkpoint is not None
        slots = {(0, i): SlotMeasures({}, gradient_norm=norm) for i, norm in enumerate((3.0, 4.0))}
        slots[1, 0] = SlotMeasures({}, gradient_norm=100.0)
        measured = Measurements({}, slots)
        found = optimizer_document(evidence.checkpoint.optimizers[0], 0, measured)
        assert found["gradient_norm"] == 5.0
        assert found["steps"] == {"min": 768.0, "max": 768.0}

    def test_a_group_has_the_measures_of_its_states_together(self) -> None:
        evidence = healthy.trained_transformer()
        assert evidence.checkpoint is not None
        optimizer = evidence.checkpoint.optimizers[0]
        first = optimizer.groups[0].index
        others = [i for i, s in enumerate(optimizer.states) if s.group == first][:2]
        assert len(others) == 2
        sizes = ((3.0, 1.0, 1), (4.0, 0.5, 3))
        slots = {
            (0, i): SlotMeasures(
                {"exp_avg": Statistics(numel, numel, l2_norm=norm)},
                next_update_ratio=rms / 100,
                direction_rms=rms,
                gradient_norm=norm,
            )
            for i, (norm, rms, numel) in zip(others, sizes, strict=True)
        }
        found = optimizer_document(optimizer, 0, Measurements({}, slots))
        measures = found["groups"][0]["measures"]
        assert measures["slots"] == {"exp_avg": 5.0}
        assert (measures["gradient_norm"], measures["next_update_ratio"]) == (5.0, 0.01)
        assert measures["direction_rms"] == pytest.approx(math.sqrt((1 + 3 * 0.25) / 4))
        assert measures["steps"] == {"min": 768.0, "max": 768.0}
        assert all(one["measures"] is None for one in found["groups"][1:])
        assert found["moments"] == {"float32": sum(bool(s.slots) for s in optimizer.states)}

    def test_what_was_measured_of_weight_and_state_stands_with_the_tensor(self) -> None:
        row = inspection(healthy.trained_transformer()).document()["tensors"][0]
        assert row["slots"]["exp_avg"]["dtype"] == "float32"
        assert {"direction_rms", "cosine", "gradient_norm", "optimizer_step"} <= row.keys()

    def test_parameters_without_state_are_named(self) -> None:
        evidence = healthy.epoch_zero()
        assert evidence.checkpoint is not None
        found = optimizer_document(evidence.checkpoint.optimizers[0], 0, None)
        assert found["with_state"] == 0
        assert len(found["without_state"]) == found["parameters"]
        assert "more" in text(inspection(evidence))

    def test_many_groups_are_cut_and_odd_settings_are_words(self) -> None:
        evidence = healthy.trained_transformer()
        assert evidence.checkpoint is not None
        one = evidence.checkpoint.optimizers[0]
        groups = tuple(
            ParameterGroup(i, f"g{i}", {"lr": 1e-3, "hook": object(), "big": [0] * 99}, (i,))
            for i in range(40)
        )
        odd = replace(evidence.checkpoint, optimizers=(replace(one, groups=groups),))
        result = inspection(replace(evidence, checkpoint=odd))
        assert "… 28 more" in text(result)
        first = result.document()["optimizers"][0]["groups"][0]
        assert (first["lr"], first["betas"], first["hook"]) == (1e-3, None, "<object>")


class TestPage:
    def test_a_sick_file_shows_its_findings_before_anything_else(self) -> None:
        page = text(small())
        title, _, first, *rest = page.splitlines()
        assert title.startswith("checkpoint_epoch_12.pth · ")
        assert "error" in title
        assert first.startswith("error    NUM101 nonfinite-weight (proof)")
        assert any(line.startswith("         next  ckptools ") for line in rest)
        assert page.index("── File") > page.index("NUM101")

    def test_a_healthy_file_says_how_many_rules_looked(self) -> None:
        page = text(inspection(healthy.trained_transformer(), rules=False))
        assert "nothing found by 34 rules" in page
        assert "epoch 12 · step 768" in page
        assert "decoder.layers × 6" in page
        assert "99 of 99 parameters" in page

    def test_a_listing_shows_shapes_and_says_that_values_were_not_read(self) -> None:
        result = inspection(replace(healthy.trained_transformer(), measurements=None))
        page = text(result)
        assert "128 × 32" in page
        assert "headers only" in page
        assert page.count("self_attn.q_proj.weight") == 6, "a listing is not cut"

    def test_each_weight_set_has_its_own_table(self) -> None:
        page = text(inspection(healthy.adversarial_pair()))
        for name in ("generator", "ema", "discriminator"):
            assert f"── Modules of {name} ─" in page

    def test_long_tables_are_cut_and_say_so(self) -> None:
        weights = {f"m{i}.weight": np.ones((2, 2)) * i for i in range(60)}
        evidence = Builder(weights).evidence()
        assert "… 20 more" in text(inspection(evidence, rules=False))
        assert "more" not in text(inspection(evidence, rules=False, top=0)).split("Modules")[1]

    def test_a_pattern_without_a_match_is_said(self) -> None:
        assert "no name matches zzz" in text(small(grep="zzz"))

    def test_questionable_classes_come_first(self) -> None:
        builder = Builder({"a.weight": np.eye(3)}, run=RunState(epoch=1, extras={"args": "x"}))
        builder.globals = (
            GlobalUse("argparse.Namespace", "known"),
            GlobalUse("my.Model", "unknown"),
            GlobalUse("os.system", "dangerous"),
        )
        page = text(inspection(builder.evidence(), rules=False))
        assert "os.system (dangerous), my.Model (unknown); 1 known; nothing was imported" in page

    def test_a_file_without_tensors_is_not_called_clean(self) -> None:
        evidence = Builder().evidence()
        assert evidence.checkpoint is not None
        outcome = Outcome(judge(evidence), nothing_examined="the file holds no tensors")
        result = Inspection(evidence.checkpoint, evidence.measurements, outcome)
        assert result.exit_code == 2
        assert "nothing was examined: the file holds no tensors" in text(result)
        assert "nothing found" not in text(result)


class TestSpread:
    @staticmethod
    def group(values: np.ndarray) -> list[tuple[str, Statistics | None]]:
        words = np.asarray(values, "<f4").view("<u4") >> 16
        bins, counts = np.unique(words, return_counts=True)
        return [("float32", replace(statistics_of(values), sketch=(bins, counts)))]

    def test_rows_share_one_axis(self) -> None:
        rng = np.random.default_rng(0)
        spread = Spread([self.group(rng.normal(size=4096) * 2.0**k) for k in (0, -4)])
        large, small_ = (spread.bars(index) for index in range(2))
        assert large is not None
        assert small_ is not None
        centre = [
            np.average(range(BARS), weights=[one or 0 for one in bars]) for bars in (large, small_)
        ]
        low, high = map(int, re.findall(r"-?\d+", spread.title.partition("^")[2]))
        assert (centre[0] - centre[1]) * (high - low) / BARS == pytest.approx(4, abs=0.2)
        assert sum(one or 0 for one in large) == 4096

    def test_all_heights_are_counted_and_nothing_is_no_bar(self) -> None:
        spread = Spread([self.group(np.array([1.0, 1.5, 0.0, np.nan, np.inf])), [("int64", None)]])
        bars = spread.bars(0)
        assert bars is not None
        assert sum(one or 0 for one in bars) == 2
        assert spread.bars(1) is None

    def test_the_axis_ends_at_the_largest_value(self) -> None:
        assert Spread([self.group(np.array([0.3, 5.0]))]).title.endswith("..3")


class TestOddFiles:
    """Whole files, through the library's own function."""

    def test_a_group_for_each_parameter_is_one_row(self, tmp_path: Path) -> None:
        model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(8)))
        groups: list[dict[str, Any]] = [{"params": [p], "lr": 0.1} for p in model.parameters()]
        groups[3]["lr"] = 0.2
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        held = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(held, tmp_path / "a.pth")
        page = text(inspect(tmp_path / "a.pth"))
        _, _, table = page.partition("group  parameters")
        rows = [line.split()[:3] for line in table.splitlines()[2:5]]
        assert rows == [["0-2", "3", "0.1"], ["3", "1", "0.2"], ["4-15", "12", "0.1"]]

    def test_pairs_in_a_setting_are_shown(self, tmp_path: Path) -> None:
        layer = torch.nn.Linear(3, 3)
        optimizer = torch.optim.Adafactor(layer.parameters())
        held = {"model": layer.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(held, tmp_path / "a.pth")
        assert "[–, 0.001]" in text(inspect(tmp_path / "a.pth"))

    def test_values_that_no_set_holds_are_told(self, tmp_path: Path) -> None:
        shadow = [torch.ones(3), torch.ones(2)]
        held = {"model": {"a.weight": torch.ones(2, 2)}, "ema": {"shadow_params": shadow, "n": 3}}
        torch.save(held, tmp_path / "a.pth")
        (told,) = [line for line in inspect(tmp_path / "a.pth").outcome.not_judged if "ema" in line]
        assert told.startswith("ema.shadow_params.0, ema.shadow_params.1: neither weights nor")
