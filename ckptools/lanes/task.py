"""The lane detector as a task: what a re-run needs to know to train and judge it.

``ckptools.lanes.task:Lanes`` fulfils the task protocol, and :mod:`ckptools.lanes.train` trains
through it, so that a re-run does what the run did.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ckptools.lanes.losses import lane_losses, term_weights, totals
from ckptools.lanes.metrics import scores
from ckptools.lanes.model import LaneDetector
from ckptools.lanes.scenes import EXTENT, Batch, batch, batches
from ckptools.lanes.settings import RATES, LaneSettings

STEPS_PER_EPOCH = 64
#: Learning rates follow a cosine that would end after so many epochs.
HORIZON = 100
WEIGHT_DECAY = 0.01
_VALIDATION_SEED = 2**31
_VALIDATION_SCENES = 128


class Lanes:
    """Lane detection on synthetic scenes.

    Parameters
    ----------
    settings: see :class:`ckptools.lanes.settings.LaneSettings`; ValueError for what is unknown.
    """

    #: Every setting with its default.
    settings: Mapping[str, Any] = asdict(LaneSettings())

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.chosen = LaneSettings.parse(settings or {})

    @property
    def clip_norm(self) -> float:
        """The largest gradient norm; longer gradients are scaled down to it."""
        return self.chosen.clip

    def build(self) -> nn.Module:
        """Return a fresh detector, drawn from torch's global generator."""
        return LaneDetector(self.chosen.model_size())

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW over the parameters that learn, in four named groups."""
        members: dict[str, list[nn.Parameter]] = {name: [] for name in RATES}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                members[group_of(name)].append(parameter)
        groups = [
            {"params": members[name], "lr": rate, "name": name}
            for name, rate in self.chosen.rates().items()
        ]
        return torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return linear warm-up followed by the first part of a cosine, stepped every step."""
        shape = Schedule(self.chosen.warmup, HORIZON * STEPS_PER_EPOCH)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, shape)

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield batches of fresh scenes without end."""
        for one in batches(seed, self.chosen.batch):
            yield self._seen(one)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the unweighted terms ``cls.LAYER``, ``pts.LAYER`` and ``dir.LAYER``."""
        return lane_losses(model(batch["tiles"]), batch)

    def weights(self) -> dict[str, float]:
        """Return the weight of each term in the training loss."""
        return term_weights(self.chosen.aux_weights)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the validation values, over the same scenes always.

        ``loss`` is the main output's, ``loss_layers`` the mean of all layers' (no setting weighs
        them), ``mAP`` from 0 to 1, ``valid`` the valid predictions in a scene, and every
        unweighted term.
        """
        device = next(model.parameters()).device
        scenes = {name: values.to(device) for name, values in self._validation.items()}
        output = model(scenes["tiles"])
        terms = {name: float(value) for name, value in lane_losses(output, scenes).items()}
        layers = len(output.logits)
        main, mean = totals(terms, (1.0 / layers,) * layers)
        found = scores(output, scenes["lines"], scenes["classes"])
        return {"loss": main, "loss_layers": mean, **found, **terms}

    @torch.no_grad()
    def probes(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        """Return how predicted lines look: what explains gradients that the losses do not.

        ``median_segment`` in metres and ``collapsed`` (share of segments below a centimetre)
        tell of lines that shrank to a point, ``saturated`` of coordinates at the edge.
        """
        lines = model(batch["tiles"]).lines
        extent = torch.as_tensor(EXTENT, dtype=lines.dtype, device=lines.device)
        length = (lines.diff(dim=-2) * extent).norm(dim=-1)
        edge = (lines - 0.5).abs() > 0.499
        return {
            "median_segment": float(length.median()),
            "collapsed": float((length < 0.01).float().mean()),
            "saturated": float(edge.float().mean()),
        }

    @cached_property
    def modules(self) -> list[str]:
        """Units of the restore scan: each repeated block, and each other part by itself."""
        size = self.chosen.model_size()
        layers = [f"qformer.bert.encoder.layer.{n}" for n in range(size.qformer_layers)]
        stacks = ("layers", "cls_branches", "reg_branches")
        blocks = [f"decoder.{stack}.{n}" for stack in stacks for n in range(size.blocks)]
        start = ["decoder.query_embed", "decoder.reference_points", "decoder.ref_point_head"]
        entry = ["vision", "qformer.query_tokens", "qformer.bert.embeddings"]
        return [*entry, *layers, "projector", "llm", *start, *blocks]

    @cached_property
    def logged(self) -> dict[int, dict[str, float]]:
        """Validation values that the run wrote into its log, by epoch."""
        if self.chosen.log is None:
            return {}
        records = [json.loads(line) for line in Path(self.chosen.log).read_text().splitlines()]
        return {
            record["epoch"]: {
                name: float(value)
                for name, value in record.items()
                if name not in ("phase", "epoch", "step")
            }
            for record in records
            if record["phase"] == "val"
        }

    @cached_property
    def _validation(self) -> Batch:
        return self._seen(batch(_VALIDATION_SEED, 0, _VALIDATION_SCENES))

    def _seen(self, scenes: Batch) -> Batch:
        """Return the scenes with the camera tiles in the order that was set."""
        return {**scenes, "tiles": scenes["tiles"][:, list(self.chosen.cameras)]}


def group_of(name: str) -> str:
    """Return the parameter group that a parameter is trained in."""
    top = name.partition(".")[0]
    return {
        "vision": "qformer_backbone",
        "qformer": "qformer_projector",
        "projector": "qformer_projector",
        "llm": "lora",
        "decoder": "qformer_decoder",
    }[top]


@dataclass
class Schedule:
    """Factor on the learning rate at a step; a plain object, so that a scheduler can save it."""

    warmup: int
    horizon: int

    def __call__(self, step: int) -> float:
        """Return the factor: linear warm-up, times a cosine that falls to 0 at the horizon."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return rise * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self.horizon)))
