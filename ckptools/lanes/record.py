"""The logs of a lanes run: one JSON object a line, and a record for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from types import TracebackType

from ckptools.lanes.losses import COMPONENTS, totals

JSON_LOG = "train.jsonl"
TEXT_LOG = "train.log"
_EVERY = 8


@dataclass
class Epoch:
    """What the steps of one epoch gave."""

    terms: list[dict[str, float]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        """Return the mean of every unweighted term."""
        return {name: fmean(step[name] for step in self.terms) for name in self.terms[0]}


class RunLog:
    """Appends to ``train.jsonl`` and ``train.log`` in the run's folder.

    Every eighth step and every validation become a JSON object (``phase`` is train or val);
    every epoch becomes a paragraph of the record: means of the losses, gradient norms, learning
    rates, mAP and valid predictions.
    """

    def __init__(self, folder: Path, aux_weights: Sequence[float], clip: float) -> None:
        self.aux_weights = list(aux_weights)
        self.clip = clip
        self._json = (folder / JSON_LOG).open("a", encoding="utf-8")
        self._text = (folder / TEXT_LOG).open("a", encoding="utf-8")

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._json.close()
        self._text.close()

    def title(self, lines: Sequence[str]) -> None:
        """Open the record."""
        self._text.write("\n".join(lines) + "\n")

    def step(
        self,
        epoch: int,
        step: int,
        terms: Mapping[str, float],
        norm: float,
        rates: Mapping[str, float],
    ) -> None:
        """Note one training step; most are only counted in the epoch's paragraph."""
        if step % _EVERY:
            return
        main, auxiliary = totals(terms, self.aux_weights)
        self._write(
            phase="train",
            epoch=epoch,
            step=step,
            loss_total=main,
            loss_aux_total=auxiliary,
            **terms,
            grad_norm=norm,
            clipped=float(norm > self.clip),
            **{f"lr/{name}": rate for name, rate in rates.items()},
        )

    def validation(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Note the validation values after an epoch."""
        self._write(phase="val", epoch=epoch, step=step, **values)

    def paragraph(
        self, number: int, epoch: Epoch, values: Mapping[str, float], rates: Mapping[str, float]
    ) -> None:
        """Write an epoch's paragraph."""
        means = epoch.means()
        main, auxiliary = totals(means, self.aux_weights)
        layers = range(len(self.aux_weights))
        clipped = sum(norm > self.clip for norm in epoch.norms)
        lines = [
            f"\n## Epoch {number} Summary",
            f"loss_total: {main:.4f} (Avg)",
            f"loss_aux_total: {auxiliary:.4f} (Avg)",
            "\nMain output:",
            *(f"  loss_{name}: {means[f'{name}.{layers[-1]}']:.4f}" for name in COMPONENTS),
            "\nAuxiliary losses by layer:",
            *(f"  Layer {layer}: {_layer(means, layer)}" for layer in layers),
            f"\nGradient norm: {min(epoch.norms):.2f} to {max(epoch.norms):.2f}, "
            f"typically {median(epoch.norms):.2f}",
            f"Gradient warnings: {clipped} of {len(epoch.norms)} steps above {self.clip}",
            "Learning rates: " + ", ".join(f"{name}={rate:.2e}" for name, rate in rates.items()),
            f"Validation loss: {values['loss']:.4f}",
            f"mAP: {values['mAP']:.4f}",
            f"Valid predictions: {values['valid']:.2f} per scene",
        ]
        self._text.write("\n".join(lines) + "\n")
        self._text.flush()

    def _write(self, **record: float | str) -> None:
        self._json.write(json.dumps(record) + "\n")
        self._json.flush()


def _layer(means: Mapping[str, float], layer: int) -> str:
    return ", ".join(f"{name}={means[f'{name}.{layer}']:.4f}" for name in COMPONENTS)
