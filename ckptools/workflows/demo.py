"""Train the bundled example, plant one fault in its last checkpoint, inspect before and after."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ckptools import __version__
from ckptools.errors import InvalidParameter, WouldOverwrite
from ckptools.types.blocks import Block, Column, FindingList, Heading, Paragraph, Table
from ckptools.types.finding import Finding
from ckptools.types.wording import say
from ckptools.workflows.inspect import Inspection, inspect

Talk = Callable[[str], None]
PREFIX = "module."


@dataclass(frozen=True)
class Demonstration:
    """What the demo did and what inspection said.

    Attributes
    ----------
    folder: where the run lies.
    epochs: validation values by epoch, as the run logged them.
    fault, explanation: the fault's name and what it is.
    target: what it damaged: modules or tensors, separated by commas, or a part of the file.
    healthy, damaged: paths of the checkpoint and of its damaged copy.
    judged: validation values of the damaged copy, None where it cannot be loaded.
    before, after: the inspections of both.
    """

    folder: Path
    epochs: tuple[dict[str, Any], ...]
    fault: str
    explanation: str
    target: str
    healthy: Path
    damaged: Path
    judged: dict[str, float] | None
    before: Inspection
    after: Inspection

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What was found in the damaged copy and not in the healthy checkpoint."""
        known = {(finding.code, finding.target) for finding in self.before.findings}
        return tuple(one for one in self.after.findings if (one.code, one.target) not in known)

    @property
    def named(self) -> tuple[Finding, ...]:
        """Those of the findings that name what was damaged, a part of it or what it is part of."""
        places = self.target.split(", ")
        return tuple(
            one for one in self.findings if any(_overlap(one.target, place) for place in places)
        )

    @property
    def exit_code(self) -> int:
        """0: the findings were asked for; 2 when a rule crashed."""
        crashed = self.before.outcome.judgement.crashed or self.after.outcome.judgement.crashed
        return 2 if crashed else 0

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.demo/1``, with both inspections under ``parts``."""
        after = self.after.outcome.document()
        return {
            "schema": "ckptools.demo/1",
            "tool": {"version": __version__},
            "folder": str(self.folder),
            "fault": self.fault,
            "target": self.target,
            "named": bool(self.named),
            "checkpoint": str(self.healthy),
            "damaged": str(self.damaged),
            "epochs": [dict(values) for values in self.epochs],
            "validation": {"before": self._judged_before(), "after": self.judged},
            "parts": {"before": self.before.document(), "after": self.after.document()},
            "findings": [finding.document() for finding in self.findings],
            "crashed": after["crashed"],
            "skipped": after["skipped"],
            "not_judged": after["not_judged"],
            "exit_code": self.exit_code,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per epoch, and one for the damaged copy."""
        rows = [{"path": f"checkpoint_epoch_{one['epoch']}.pth", **one} for one in self.epochs]
        if self.judged is not None:
            rows.append({"path": self.damaged.name, "epoch": self._last_epoch(), **self.judged})
        return rows

    def view(self) -> list[Block]:
        """Return the story."""
        return [
            Heading(say("One fault in a checkpoint, and how it is found"), level=1),
            *self._training(),
            *self._before(),
            *self._planting(),
            *self._after(),
            *self._next(),
        ]

    def _training(self) -> list[Block]:
        text = say(
            "A Q-Former lane detector was trained on synthetic scenes for "
            "{last_epoch} epochs; its checkpoints and logs lie in {shown}.",
            last_epoch=self._last_epoch(),
            shown=_shown(self.folder),
        )
        columns = (
            Column("path", say("checkpoint"), "name"),
            Column("loss", say("validation loss"), "number"),
            Column("mAP", say("mAP"), "percent"),
            Column("valid", say("valid predictions per scene"), "number"),
        )
        return [
            Heading(say("Training")),
            Paragraph(text),
            Table(columns, tuple({key: row[key] for key in _KEYS} for row in self.rows())),
        ]

    def _before(self) -> list[Block]:
        command = _command("inspect", "--spectrum", self.healthy)
        blocks: list[Block] = [Heading(say("Before")), Paragraph(command)]
        if self.before.findings:
            blocks.append(FindingList(self.before.findings))
        grave = sum(one.severity != "note" for one in self.before.findings)
        if grave:
            blocks.append(
                Paragraph(
                    say("{grave} false alarms on a healthy checkpoint", grave=grave), "caution"
                )
            )
        else:
            blocks.append(
                Paragraph(say("no finding above a note on the healthy checkpoint"), "good")
            )
        return blocks

    def _planting(self) -> list[Block]:
        text = say(
            "{name} is a copy with the fault {fault!r} in {target}: {explanation}",
            name=self.damaged.name,
            fault=self.fault,
            target=self.target,
            explanation=self.explanation,
        )
        return [Heading(say("The fault")), Paragraph(text), Paragraph(self._harm())]

    def _harm(self) -> str:
        if self.judged is None:
            return say("The copy can no longer be loaded, so its validation loss is unknown.")
        before = self._judged_before()
        return say(
            "Its validation loss is {loss:.2f} instead of {loss_before:.2f}, its mAP "
            "{mAP:.1%} instead of {mAP_before:.1%}.",
            loss=self.judged["loss"],
            loss_before=before["loss"],
            mAP=self.judged["mAP"],
            mAP_before=before["mAP"],
        )

    def _after(self) -> list[Block]:
        command = _command("inspect", "--spectrum", self.damaged)
        blocks: list[Block] = [Heading(say("After")), Paragraph(command)]
        if self.findings:
            blocks.append(FindingList(self.findings))
        return [*blocks, self._conclusion()]

    def _conclusion(self) -> Paragraph:
        if self.named:
            best = self.named[0]
            return Paragraph(
                say(
                    "{code} {name} names {target}: found",
                    code=best.code,
                    name=best.name,
                    target=best.target,
                ),
                "good",
            )
        if self.findings:
            return Paragraph(
                say("something was found, and none of it names {target}", target=self.target),
                "caution",
            )
        return Paragraph(
            say(
                "not found: this fault does not show in one file by itself (the weights "
                "look like any other weights); it takes a comparison with the checkpoint "
                "before"
            ),
            "caution",
        )

    def _next(self) -> list[Block]:
        lines = [_command("inspect", self.damaged, "--by", "tensor", "--sort", "rms")]
        if self.named:
            lines.append(_command("explain", self.named[0].code))
        return [Heading(say("Look yourself")), Paragraph("\n".join(f"- {line}" for line in lines))]

    def _judged_before(self) -> dict[str, Any]:
        return {name: self.epochs[-1][name] for name in ("loss", "mAP", "valid")}

    def _last_epoch(self) -> int:
        return int(self.epochs[-1]["epoch"])


_KEYS = ("path", "loss", "mAP", "valid")


def _overlap(one: str, other: str) -> bool:
    """Return whether two names are the same or one lies inside the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _shown(path: Path) -> str:
    """Return the path as a user would type it: relative to here when it lies below."""
    here = Path.cwd()
    absolute = path.absolute()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def _command(*words: str | Path) -> str:
    parts = [_shown(word) if isinstance(word, Path) else word for word in words]
    return shlex.join(["ckptools", *parts])


def demo(
    folder: str | os.PathLike[str] | None = None,
    *,
    epochs: int = 3,
    seed: int = 0,
    fault: str = "scaled-layer",
    talk: Talk | None = None,
) -> Demonstration:
    """Train a small lane detector, damage a copy of its last checkpoint, inspect both.

    Parameters
    ----------
    folder: for the run; an existing one must be empty.  A temporary one by default, which stays.
    epochs: how long to train, at least 1; about two seconds each.
    seed: of data, weights and the fault's choices.
    fault: a name of :data:`ckptools.lanes.faults.FAULTS` or ``FILE_FAULTS``.
    talk: called with a line now and then.

    Raises
    ------
    InvalidParameter: unknown fault, or no epoch.
    WouldOverwrite: the folder holds files.
    """
    from ckptools.lanes import faults, train
    from ckptools.lanes.record import JSON_LOG
    from ckptools.lanes.task import Lanes

    if epochs < 1:
        raise InvalidParameter(f"{epochs} epochs are no training", next="give at least 1")
    explanation = faults.explain(fault)
    place = _empty_folder(folder)
    tell = talk or _silent
    tell(
        say(
            "training a small lane detector for {epochs} epochs in {folder}",
            epochs=epochs,
            folder=_shown(place),
        )
    )
    healthy = train.train(place, epochs=epochs, seed=seed, size="small", prefix=PREFIX, talk=talk)
    damaged = healthy.with_name(f"{healthy.stem}.{fault}.pth")
    earlier = healthy.with_name(f"checkpoint_epoch_{epochs - 1}.pth")
    planted = faults.plant(healthy, damaged, fault, seed=seed, earlier=earlier)
    tell(
        say(
            "planted {fault} in {target}; inspecting both files", fault=fault, target=planted.target
        )
    )
    logged = Lanes({"size": "small", "log": place / JSON_LOG}).logged
    return Demonstration(
        folder=place,
        epochs=tuple({"epoch": epoch, **_judged(logged[epoch])} for epoch in sorted(logged)),
        fault=fault,
        explanation=explanation,
        target=planted.target,
        healthy=healthy,
        damaged=damaged,
        judged=None if fault in faults.FILE_FAULTS else _evaluate(damaged),
        before=inspect(healthy, spectrum=True),
        after=inspect(damaged, spectrum=True),
    )


def _silent(message: str) -> None:
    """Say nothing."""


def _empty_folder(folder: str | os.PathLike[str] | None) -> Path:
    """Return a folder that holds nothing, so that nothing of the user's can be overwritten."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="ckptools-demo-"))
    place = Path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise WouldOverwrite(
            "the demo wants a folder of its own", where=str(place), next="name a new folder"
        )
    return place


def _judged(values: dict[str, float]) -> dict[str, float]:
    return {name: values[name] for name in ("loss", "mAP", "valid")}


def _evaluate(path: Path) -> dict[str, float]:
    """Return the validation values of a checkpoint of the demo's run."""
    from ckptools.lanes.task import Lanes
    from ckptools.lanes.train import load, one_thread

    task = Lanes({"size": "small"})
    model = task.build()
    weights = load(path)["model_state_dict"]
    model.load_state_dict({name.removeprefix(PREFIX): value for name, value in weights.items()})
    with one_thread():
        return _judged(task.evaluate(model.eval()))
