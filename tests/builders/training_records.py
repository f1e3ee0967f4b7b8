"""A training record in words of our own, and logs made of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ckptools.logs import read
from ckptools.logs.audit import audit
from ckptools.types.evidence import Evidence
from ckptools.types.records import Log

#: losses of six layers (cls, pts, dir) of a run whose first layer predicts collapsed lines
LAYERS = (
    (0.2639, 39.1078, 0.0934),
    (0.2966, 26.2223, 18.4780),
    (0.3421, 22.2543, 18.4093),
    (0.3490, 12.6270, 17.1694),
    (0.3604, 8.9475, 15.7220),
    (0.3619, 8.2141, 15.2316),
)
TABLE = "\n".join(
    f"Layer {number}: cls={cls:.4f}, pts={pts:.4f}, dir={direction:.4f}"
    for number, (cls, pts, direction) in enumerate(LAYERS)
)

RECORD = f"""# Report after epoch 13

Resumed from `checkpoint_epoch_12.pth` on 2026-02-07 17:24.
Auxiliary weights: epoch 12 `[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]`, epoch 13 `[0.5] * 6`.

## Losses of epoch 13
loss_total: 35.9598 (Avg)
loss_aux_total: 306.0442 (Avg)
loss_cls: 0.3651
loss_pts: 6.4505
loss_dir: 11.9087

{TABLE}

Before (epoch 12): loss_aux_total = 167.5

## Gradients
- Gradient warnings: 937 in 4689 steps
- largest gradient norm: 14140.87 (step 4465)
- smallest gradient norm: 1604.12 (step 4600)
- grad_clip=35.0 does not help
- Learning rates: decoder=1.9e-04, projector=2.3e-04

## Possible causes
- the projector's lr=1e-4 may be too high, loss_total: 99.0 was expected

## Next steps
### Plan A: smaller weights
aux_weights = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
- expected: loss falls to 60-80
### Plan B: from scratch
- auxiliary weight: 0.3
- grad_clip: 10.0
### Plan C: a simpler model
- supervise the last two layers only
"""


def log_of(text: str) -> Log:
    """Return the records of a log with this content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.log"
        path.write_text(text, encoding="utf-8")
        return read(path)


def evidence_of(text: str) -> Evidence:
    """Return the evidence that rules get from a log with this content."""
    return Evidence(log=audit(log_of(text)))


def without(*fragments: str) -> str:
    """Return the record without the lines that hold one of ``fragments``."""
    kept = [line for line in RECORD.splitlines() if not any(one in line for one in fragments)]
    return "\n".join(kept) + "\n"


def changed(old: str, new: str) -> str:
    """Return the record with one passage replaced."""
    assert old in RECORD
    return RECORD.replace(old, new)
