"""The rules on files, keys, numbers and spread, over files as training leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptools import layouts, stats
from ckptools.formats import open_container, verify_checksums
from ckptools.lanes.faults import plant
from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Judgement
from tests.builders.shared import shared
from tests.test_real_wheels import WEIGHTS, member


def judged(path: str | Path) -> Judgement:
    container = open_container(str(path))
    checkpoint = layouts.read_checkpoint(container)
    measurements = stats.measure(checkpoint, spectrum=True, threads=1)
    evidence = Evidence(checkpoint, measurements, verify_checksums(container))
    return judge(evidence, select=["FIL", "KEY", "NUM", "SPR"])


def grave(judgement: Judgement) -> list[tuple[str, str]]:
    """Return code and target of everything above a note."""
    assert judgement.crashed == ()
    return [(one.code, one.target) for one in judgement.findings if one.severity != "note"]


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_a_healthy_run(lanes_run: Path, epoch: int) -> None:
    judgement = judged(lanes_run / f"checkpoint_epoch_{epoch}.pth")
    assert grave(judgement) == []
    assert "KEY101" in {finding.code for finding in judgement.findings}


#: fault, and the code of the only finding, whose target is what was damaged
FAULTS = [
    ("nan", "NUM101"),
    ("half-overflow", "NUM101"),
    ("bit-30", "NUM108"),
    ("scaled-layer", "SPR101"),
    ("zeroed-module", "NUM106"),
]


@pytest.mark.parametrize(("fault", "code"), FAULTS)
def test_a_planted_fault(lanes_run: Path, tmp_path: Path, fault: str, code: str) -> None:
    source = lanes_run / "checkpoint_epoch_3.pth"
    planted = plant(source, tmp_path / "sick.pth", fault, seed=1)
    assert grave(judged(planted.path)) == [(code, planted.target)]


def test_a_flipped_bit_is_located(lanes_run: Path, tmp_path: Path) -> None:
    source = lanes_run / "checkpoint_epoch_3.pth"
    planted = plant(source, tmp_path / "sick.pth", "bit-on-disk")
    finding = next(one for one in judged(planted.path).findings if one.code == "FIL103")
    healthy, sick = source.read_bytes(), planted.path.read_bytes()
    (place,) = (at for at, (a, b) in enumerate(zip(healthy, sick, strict=True)) if a != b)
    assert finding.evidence["file_byte"] == place
    assert 1 << finding.evidence["bit"] == healthy[place] ^ sick[place]
    assert finding.evidence["tensors"]
    assert finding.advice == f"ckptools repair {planted.path}"


def test_a_cut_file(lanes_run: Path, tmp_path: Path) -> None:
    planted = plant(lanes_run / "checkpoint_epoch_3.pth", tmp_path / "sick.pth", "cut")
    assert ("FIL101", "archive") in grave(judged(planted.path))


SERIES = [
    "cgcnn/checkpoint.pth.tar",
    "cgcnn/model_best.pth.tar",
    *(f"mnist-dcgan/checkpoint_epoch_{epoch}.pth" for epoch in (10, 20, 30, 40)),
]


@pytest.mark.parametrize("name", SERIES)
def test_real_runs(name: str) -> None:
    assert grave(judged(shared(f"data/series/{name}"))) == []


@pytest.mark.wheels
@pytest.mark.parametrize("row", WEIGHTS, ids=lambda row: row[1])
def test_published_weights(row: tuple[str, str, str, int, int], tmp_path: Path) -> None:
    assert grave(judged(member(row[0], row[1], tmp_path))) == []


@pytest.mark.wheels
def test_a_module_that_never_got_a_gradient(tmp_path: Path) -> None:
    name = "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"
    assert grave(judged(member("chgnet==0.4.2", name, tmp_path))) == [("SPR105", "angle_layers.2")]
