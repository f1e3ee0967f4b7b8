"""What can be set about a lanes run, and the refusal of everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptools.lanes.model import SIZES, Size
from ckptools.lanes.scenes import CAMERAS

#: Learning rate of each parameter group after warm-up.
RATES = {
    "qformer_backbone": 1.44e-4,
    "qformer_projector": 1.44e-3,
    "lora": 6e-4,
    "qformer_decoder": 1.2e-3,
}


@dataclass(frozen=True)
class LaneSettings:
    """Settings of the task; :meth:`parse` makes them from a mapping as a user gives it.

    Attributes
    ----------
    size: "full" (0.52 M weights) or "small" (0.13 M).
    blocks: number of decoder layers, 1 to 6.
    aux_weights: auxiliary weight of every decoder layer; one number stands for all.
    warmup: steps of linear warm-up.
    clip: largest gradient norm.
    lr: learning rate by parameter group; one number stands for all groups.
    lr_scale: factor on all learning rates.
    batch: scenes in a batch.
    cameras: the order in which camera tiles reach the model; any other than 0 to 5 is a data bug.
    log: path of the run's ``train.jsonl``, whose validation values the task reports as logged.
    """

    size: str = "full"
    blocks: int = 6
    aux_weights: tuple[float, ...] = (0.5,) * 6
    warmup: int = 50
    clip: float = 35.0
    lr: Mapping[str, float] | None = None
    lr_scale: float = 1.0
    batch: int = 16
    cameras: tuple[int, ...] = tuple(range(CAMERAS))
    log: str | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> LaneSettings:
        """Return the settings; ValueError names everything that cannot be honoured, at once."""
        problems = [f"no setting {name!r}" for name in given if name not in _PARSERS]
        values: dict[str, Any] = {}
        for name, parse in _PARSERS.items():
            if name not in given:
                continue
            try:
                values[name] = parse(given[name])
            except (TypeError, ValueError) as error:
                problems.append(f"{name}: {error}")
        if not problems:
            blocks = values.get("blocks", cls.blocks)
            weights = values.get("aux_weights", 0.5)
            if isinstance(weights, float):
                values["aux_weights"] = (weights,) * blocks
            elif len(weights) != blocks:
                problems.append(f"aux_weights: {len(weights)} weights for {blocks} blocks")
        if problems:
            raise ValueError(f"lanes: {'; '.join(problems)} (known: {', '.join(_PARSERS)})")
        return cls(**values)

    def model_size(self) -> Size:
        """Return the detector's dimensions."""
        return replace(SIZES[self.size], blocks=self.blocks)

    def rates(self) -> dict[str, float]:
        """Return the learning rate of every parameter group after warm-up."""
        return {
            name: (self.lr or {}).get(name, rate) * self.lr_scale for name, rate in RATES.items()
        }


def _size(value: Any) -> str:
    if value not in SIZES:
        raise ValueError(f"{value!r} is not one of {', '.join(SIZES)}")
    return str(value)


def _whole(low: int, high: int | None = None) -> Any:
    def parse(value: Any) -> int:
        number = int(value)
        if number != float(value) or number < low or (high is not None and number > high):
            raise ValueError(f"{value!r} is no whole number from {low} to {high or 'any'}")
        return number

    return parse


def _positive(value: Any) -> float:
    number = float(value)
    if not 0.0 < number < float("inf"):
        raise ValueError(f"{value!r} is not above 0")
    return number


def _weights(value: Any) -> float | tuple[float, ...]:
    numbers = tuple(map(float, value)) if _is_sequence(value) else (float(value),)
    if not all(0.0 <= number < float("inf") for number in numbers):
        raise ValueError(f"{value!r} has a negative or endless weight")
    return numbers if _is_sequence(value) else numbers[0]


def _rates(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return dict.fromkeys(RATES, _positive(value))
    unknown = [name for name in value if name not in RATES]
    if unknown:
        raise ValueError(f"no group {unknown[0]!r}, only {', '.join(RATES)}")
    return {name: _positive(rate) for name, rate in value.items()}


def _cameras(value: Any) -> tuple[int, ...]:
    order = tuple(int(camera) for camera in value)
    if sorted(order) != list(range(CAMERAS)):
        raise ValueError(f"{value!r} does not order the cameras 0 to {CAMERAS - 1}")
    return order


def _log(value: Any) -> str:
    if not Path(value).is_file():
        raise ValueError(f"{value} is not a file")
    return str(value)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


_PARSERS: dict[str, Any] = {
    "size": _size,
    "blocks": _whole(1, 6),
    "aux_weights": _weights,
    "warmup": _whole(0),
    "clip": _positive,
    "lr": _rates,
    "lr_scale": _positive,
    "batch": _whole(1),
    "cameras": _cameras,
    "log": _log,
}
