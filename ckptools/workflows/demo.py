"""The whole story on the bundled example: train, damage one module, find it, prove it, cure it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptools import __version__
from ckptools.errors import CkptoolsError, InvalidParameter, WouldOverwrite
from ckptools.types.blocks import Block
from ckptools.types.finding import Finding
from ckptools.types.plan import Receipt
from ckptools.types.wording import say
from ckptools.workflows import demo_page
from ckptools.workflows.inspect import Inspection, inspect
from ckptools.workflows.operate import operate
from ckptools.workflows.timeline import Timeline, timeline

if TYPE_CHECKING:  # torch, which this module imports when it runs
    from ckptools.workflows.rerun import Rerun

Talk = Callable[[str], None]
PREFIX = "module."
TASK = "ckptools.lanes.task:Lanes"
SETTINGS = {"size": "small"}


@dataclass(frozen=True)
class Demonstration:
    """What the demo did and what each command said.

    Attributes
    ----------
    folder: where the run lies.
    epochs: validation values by epoch, as the run logged them.
    fault, explanation: the fault's name and what it is.
    target: what it damaged: modules or tensors, separated by commas, or a part of the file.
    healthy, damaged: paths of the checkpoint as it was kept aside, and as it lies in the run.
    judged: validation values of the damaged one, None where it cannot be loaded.
    before, after: the inspections of both.
    series: the timeline of the run with the damaged checkpoint in it.
    experiment: the re-run, or why there is none.
    cure: what surgery did, None where nothing was to be done.
    recovered: validation values of the cured checkpoint.
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
    series: Timeline
    experiment: Rerun | CkptoolsError
    cure: Receipt | None = None
    recovered: dict[str, float] | None = None

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What was found in the damaged checkpoint and not in the healthy one."""
        known = {(finding.code, finding.target) for finding in self.before.findings}
        return tuple(one for one in self.after.findings if (one.code, one.target) not in known)

    @property
    def named(self) -> tuple[Finding, ...]:
        """Those of the findings that name what was damaged, a part of it or what it is part of."""
        return tuple(one for one in self.findings if self.hit(one.target))

    def hit(self, name: str | None) -> bool:
        """Return whether a name is that of what was damaged, of a part of it or of a whole."""
        return name is not None and any(_overlap(name, one) for one in self.target.split(", "))

    @property
    def earlier(self) -> Path:
        """The checkpoint before the damaged one."""
        return self.folder / f"checkpoint_epoch_{self.last_epoch - 1}.pth"

    @property
    def last_epoch(self) -> int:
        """The epoch of the damaged checkpoint."""
        return int(self.epochs[-1]["epoch"])

    @property
    def judged_before(self) -> dict[str, Any]:
        """The validation values of the healthy checkpoint."""
        return {name: self.epochs[-1][name] for name in ("loss", "mAP", "valid")}

    @property
    def exit_code(self) -> int:
        """0: the findings were asked for; 2 when a rule crashed."""
        outcomes = (self.before.outcome, self.after.outcome, self.series.outcome)
        return 2 if any(one.judgement.crashed for one in outcomes) else 0

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.demo/1``, with the documents of all commands under ``parts``."""
        after = self.after.outcome.document()
        failed = isinstance(self.experiment, CkptoolsError)
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
            "validation": {
                "before": self.judged_before,
                "after": self.judged,
                "recovered": self.recovered,
            },
            "parts": {
                "before": self.before.document(),
                "after": self.after.document(),
                "timeline": self.series.document(),
                "rerun": None if failed else self._rerun_document(),
                "receipt": self.cure.document() if self.cure else None,
            },
            "findings": [finding.document() for finding in self.findings],
            "crashed": after["crashed"],
            "skipped": after["skipped"],
            "not_judged": after["not_judged"],
            "exit_code": self.exit_code,
        }

    def _rerun_document(self) -> dict[str, Any]:
        assert not isinstance(self.experiment, CkptoolsError)
        return self.experiment.document()

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per epoch, one for the damaged checkpoint and one for the cured one."""
        rows = [{"path": f"checkpoint_epoch_{one['epoch']}.pth", **one} for one in self.epochs]
        cured = Path(self.cure.output["path"]).name if self.cure else ""
        for path, values in (
            (say("{name}, damaged", name=self.damaged.name), self.judged),
            (cured, self.recovered),
        ):
            if values is not None:
                rows.append({"path": path, "epoch": self.last_epoch, **values})
        return rows

    def view(self) -> list[Block]:
        """Return the story."""
        return demo_page.story(self)


def _overlap(one: str, other: str) -> bool:
    """Return whether two names are the same or one lies inside the other."""
    inside = one.startswith((f"{other}.", f"{other} ")) or other.startswith(f"{one}.")
    return one == other or inside


def demo(
    folder: str | os.PathLike[str] | None = None,
    *,
    epochs: int = 12,
    seed: int = 0,
    fault: str = "scaled-layer",
    talk: Talk | None = None,
) -> Demonstration:
    """Train a small lane detector, damage its last checkpoint, and do all that one does then.

    The damaged checkpoint takes the place of the healthy one in the run; the healthy one is kept
    in the folder ``healthy``.  It is inspected, followed through the run's epochs, put through a
    re-run with the run's own task, and cured by what the verdict blames.

    Parameters
    ----------
    folder: for the run; an existing one must be empty.  A temporary one by default, which stays.
    epochs: how long to train, at least 2; about two seconds each.
    seed: of data, weights and the fault's choices.
    fault: a name of :data:`ckptools.lanes.faults.FAULTS` or ``FILE_FAULTS``.
    talk: called with a line now and then.

    Raises
    ------
    InvalidParameter: unknown fault, or no two epochs.
    WouldOverwrite: the folder holds files.
    """
    from ckptools.lanes import faults, train
    from ckptools.lanes.record import JSON_LOG
    from ckptools.lanes.task import Lanes

    if epochs < 2:
        raise InvalidParameter(f"{epochs} epochs are no series", next="give at least 2")
    explanation = faults.explain(fault)
    place = _empty_folder(folder)
    tell = talk or _silent
    shown = demo_page.shown(place)
    tell(say("training a small lane detector for {epochs} epochs in {folder}", epochs=epochs,
             folder=shown))  # fmt: skip
    damaged = train.train(place, epochs=epochs, seed=seed, prefix=PREFIX, talk=talk, **SETTINGS)
    healthy = _put_aside(damaged)
    earlier = damaged.with_name(f"checkpoint_epoch_{epochs - 1}.pth")
    planted = faults.plant(healthy, damaged, fault, seed=seed, earlier=earlier)
    tell(say("planted {fault} in {target}", fault=fault, target=planted.target))
    logged = Lanes({**SETTINGS, "log": place / JSON_LOG}).logged
    tell(say("inspecting, and following the run through its epochs"))
    before, after = inspect(healthy, spectrum=True), inspect(damaged, spectrum=True)
    series = timeline(place)
    tell(say("asking by experiment"))
    experiment = _experiment(damaged, earlier, place / JSON_LOG)
    cure = _cured(damaged, earlier, experiment)
    return Demonstration(
        folder=place,
        epochs=tuple({"epoch": epoch, **_judged(logged[epoch])} for epoch in sorted(logged)),
        fault=fault,
        explanation=explanation,
        target=planted.target,
        healthy=healthy,
        damaged=damaged,
        judged=None if fault in faults.FILE_FAULTS else _evaluate(damaged),
        before=before,
        after=after,
        series=series,
        experiment=experiment,
        cure=cure,
        recovered=_evaluate(Path(cure.output["path"])) if cure else None,
    )


def _silent(message: str) -> None:
    """Say nothing."""


def _put_aside(path: Path) -> Path:
    """Move a checkpoint into the folder ``healthy`` beside it."""
    kept = path.parent / "healthy" / path.name
    kept.parent.mkdir()
    path.rename(kept)
    return kept


def _experiment(damaged: Path, earlier: Path, log: Path) -> Rerun | CkptoolsError:
    """Return the re-run; the error where the checkpoint cannot be loaded."""
    from ckptools.workflows.rerun import rerun

    settings = {**SETTINGS, "log": str(log)}
    try:
        return rerun(damaged, TASK, earlier=earlier, settings=settings, threads=1)
    except CkptoolsError as error:
        return error


def _cured(damaged: Path, earlier: Path, found: Rerun | CkptoolsError) -> Receipt | None:
    """Do what the verdict asks for: other weights for one module, or a fresh optimizer state."""
    if isinstance(found, CkptoolsError) or found.verdict.decision != "supported":
        return None
    if found.verdict.cause == "optimizer":
        return operate("reset-optimizer", damaged)
    if found.verdict.module is None:
        return None
    modules = (found.verdict.module,)
    return operate("transplant", damaged, module=modules, from_checkpoint=str(earlier))


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

    task = Lanes(SETTINGS)
    model = task.build()
    weights = load(path)["model_state_dict"]
    model.load_state_dict({name.removeprefix(PREFIX): value for name, value in weights.items()})
    with one_thread():
        return _judged(task.evaluate(model.eval()))
