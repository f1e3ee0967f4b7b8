"""Real checkpoints as healthy cases: files inside wheels, and real series where they are given."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from benchmarks.diagnosis.judging import judged, series
from tests.test_real_wheels import member

#: requirement and the checkpoint inside of its wheel
WHEELS = (
    ("lpips==0.1.4", "lpips/weights/v0.1/alex.pth"),
    ("lpips==0.1.4", "lpips/weights/v0.0/squeeze.pth"),
    ("facenet-pytorch==2.6.0", "facenet_pytorch/data/onet.pt"),
    ("facenet-pytorch==2.6.0", "facenet_pytorch/data/pnet.pt"),
    (
        "rxnmapper==0.4.3",
        "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/pytorch_model.bin",
    ),
    ("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k.safetensors"),
    ("silero-vad==6.2.3", "silero_vad/data/silero_vad.jit"),
)


def real(folder: Path, results: Any, given: Path | None) -> None:
    """Judge the wheels' files one by one, and every folder of ``given`` as a series."""
    for requirement, name in WHEELS:
        _clean([Path(member(requirement, name, folder / "wheels"))], results, requirement)
    for one in sorted(given.iterdir()) if given is not None and given.is_dir() else []:
        files = sorted(p for p in one.glob("*.pth*") if p.is_file())
        if files:
            _clean(files, results, one.name)


def _clean(files: list[Path], results: Any, family: str) -> None:
    course = series(files) if len(files) > 1 else None
    ordered = sorted(files, key=lambda path: path.name in (course or {"steps": {}})["steps"])
    for index, path in enumerate(ordered):
        key = f"clean/real/{family}/{path.name}"
        if key in results:
            continue
        results.add(
            {
                "key": key,
                "kind": "clean",
                "family": f"real: {family}",
                "half": "measure",
                "seed": 0,
                "epoch": index,
                "healthy": True,
                "loss": None,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "single": judged(path),
                "previous": judged(path, [ordered[index - 1]]) if index else None,
                "onset": course["onset"] if course else None,
                "followed": course is not None,
            }
        )
