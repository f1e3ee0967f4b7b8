"""Ask by experiment whether a checkpoint is damaged: the user's task, short and paired."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptools import layouts
from ckptools.rules import judge
from ckptools.types.blocks import Block, Column, Facts, FindingList, Heading, Paragraph, Table
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding, Judgement
from ckptools.types.verdict import ArmResult, Experiment, Rung, Verdict
from ckptools.types.wording import say
from ckptools.workflows.bisection import bisect as bisect
from ckptools.workflows.outcome import Outcome

if TYPE_CHECKING:  # torch, which the other commands do without
    from ckptools.rerun.design import Design
    from ckptools.rerun.trials import Progress
    from ckptools.workflows.arms import Comparison

HYPOTHESIS = say("this checkpoint (weights or optimizer state) is damaged")
_EXIT = {"refuted": 0, "supported": 1, "undecided": 3}
#: codes of the document as words of the page
_WORDS = {
    "supported": say("supported"),
    "refuted": say("refuted"),
    "undecided": say("undecided"),
    "weights": say("weights"),
    "optimizer": say("optimizer"),
    "learning-rate": say("learning-rate"),
    "loss-weights": say("loss-weights"),
    "data-or-code": say("data-or-code"),
    "none": say("none"),
    "environment": say("environment"),
    "gap": say("gap"),
    "restore-scan": say("restore-scan"),
    "gradient-table": say("gradient-table"),
    "knock-out": say("knock-out"),
    "features": say("features"),
    "dynamics": say("dynamics"),
}
_TONE = {"refuted": "good", "supported": "bad", "undecided": "caution"}


@dataclass(frozen=True)
class Rerun:
    """A verdict and how it came about; what ``ckptools rerun`` shows."""

    checkpoint: str
    earlier: str | None
    task: str
    verdict: Verdict
    rungs: tuple[Rung, ...]
    arms: tuple[ArmResult, ...]
    not_judged: tuple[str, ...]
    seconds: float
    comparison: Comparison | None = None
    judgement: Judgement = field(default_factory=Judgement)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules of the family EXP say about the experiment."""
        return self.judgement.findings

    @property
    def exit_code(self) -> int:
        """0 refuted, 1 supported, 3 undecided; 2 after a crashed rule."""
        return 2 if self.judgement.crashed else _EXIT[self.verdict.decision]

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.verdict/1``."""
        fields = Outcome(self.judgement, self.not_judged).document()
        fields["exit_code"] = self.exit_code
        return {
            "schema": "ckptools.verdict/1",
            "tool": fields.pop("tool"),
            "checkpoint": self.checkpoint,
            "earlier": self.earlier,
            "task": self.task,
            "hypothesis": HYPOTHESIS,
            "decision": self.verdict.decision,
            "cause": self.verdict.cause,
            "module": self.verdict.module,
            "scope": self.verdict.scope,
            "reason": self.verdict.reason,
            "explanation": self.verdict.explanation,
            "effect": self.verdict.effect,
            "interval": list(self.verdict.interval) if self.verdict.interval else None,
            "cleared": list(self.verdict.cleared),
            "not_needed": list(self.verdict.not_needed),
            "rungs": [rung.document() for rung in self.rungs],
            "arms": [arm.document() for arm in self.arms],
            "comparison": self.comparison.document() if self.comparison else None,
            "would_decide": self.verdict.would_decide,
            "seconds": self.seconds,
            **fields,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per rung."""
        keys = ("name", "answered", "effect", "limit", "evaluations", "seconds", "message")
        return [{key: getattr(rung, key) for key in keys} for rung in self.rungs]

    def view(self) -> list[Block]:
        """Return the page."""
        facts = (
            (say("checkpoint"), self.checkpoint),
            (say("earlier"), self.earlier or say("none given")),
            (say("task"), self.task),
            (say("hypothesis"), HYPOTHESIS),
            (say("decision"), _WORDS.get(self.verdict.decision)),
            (say("cause"), _WORDS.get(self.verdict.cause, self.verdict.cause)),
            (say("module"), self.verdict.module),
            (say("seconds"), f"{self.seconds:.1f}"),
        )
        blocks: list[Block] = [
            Heading(say("Verdict"), 1),
            Facts(facts),
            Paragraph(self.verdict.reason, _TONE[self.verdict.decision]),
            Paragraph(self.verdict.explanation),
        ]
        if self.verdict.cleared:
            names = ", ".join(self.verdict.cleared)
            blocks.append(Paragraph(say("cleared of suspicion: {names}", names=names), "good"))
        if self.verdict.would_decide:
            blocks.append(
                Paragraph(
                    say(
                        "what would decide it: {would_decide}",
                        would_decide=self.verdict.would_decide,
                    )
                )
            )
        columns = (
            Column("name", say("rung")),
            Column("answered", say("answered")),
            Column("effect", say("effect"), "number"),
            Column("limit", say("limit"), "number"),
            Column("evaluations", say("evaluations"), "integer"),
            Column("seconds", say("seconds"), "number"),
        )
        rungs = tuple(row | {"name": _WORDS.get(row["name"], row["name"])} for row in self.rows())
        blocks.append(Table(columns, rungs, say("The ladder")))
        blocks += [
            Paragraph(
                say(
                    "- {name}: {message}",
                    name=_WORDS.get(rung.name, rung.name),
                    message=rung.message,
                )
            )
            for rung in self.rungs
        ]
        if self.verdict.not_needed:
            names = ", ".join(self.verdict.not_needed)
            blocks.append(Paragraph(say("- not needed for the answer: {names}", names=names)))
        if self.findings:
            blocks.append(FindingList(self.findings))
        blocks += [
            Paragraph(say("- not judged: {reason}", reason=reason)) for reason in self.not_judged
        ]
        return blocks + (self.comparison.view() if self.comparison else [])


def rerun(
    checkpoint: str | os.PathLike[str],
    task: str,
    *,
    earlier: str | os.PathLike[str] | None = None,
    suspects: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    all_rungs: bool = False,
    lenient: bool = False,
    device: str = "cpu",
    autocast: str | None = None,
    threads: int | None = None,
    design: Design | None = None,
    engine: str | None = None,
    workers: int | None = None,
    trials: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Rerun:
    """Find out by experiment whether ``checkpoint`` is damaged, and where.

    The task is your own code, which runs.

    Parameters
    ----------
    task: ``package.module:Name`` or ``file.py:Name``.
    earlier: a checkpoint of the same run that is believed to be healthy.
    suspects: patterns of modules that are to be cleared or confirmed.
    settings: what the task is called with.
    all_rungs: climb on after the answer.
    lenient: load what fits, and report the rest.
    device, autocast: where the model runs (cpu, cuda, ...), and in which precision (bf16, fp16).
    threads: of torch; as many as torch takes when None, one is faster for small models.
    design: arms that are compared after the verdict.
    engine: where trainings run: pool, here, ray, torchrun.  Without one the few steps of the
        ladder are taken in this process, those of a design in the pool.
    workers: how many processes; as many as processors by default.
    trials: the folder of finished trials, which are not run again; the user's cache by default.
    progress: called after every trial.

    Raises
    ------
    OpenError: a file cannot be read.
    SettingsError: no such device, engine or arm, or a design that cannot decide; before anything
        is measured.
    TaskError: the task broke its protocol.
    NotComparable: a file does not fit the task's model, or trials differ in more than their arm.
    """
    import torch  # the other commands do without

    from ckptools.rerun import machine
    from ckptools.rerun.case import Case
    from ckptools.rerun.engines import engine as engine_of
    from ckptools.rerun.ladder import climb
    from ckptools.rerun.task import load_task
    from ckptools.rerun.trainings import Place
    from ckptools.rerun.trials import Experiment as Trained
    from ckptools.rerun.trials import default_store
    from ckptools.workflows.arms import check, compare_arms

    start = time.perf_counter()
    chosen = engine_of(engine or "pool")
    opened = layouts.open(checkpoint)
    before = None if earlier is None else layouts.open(earlier)
    trained = Trained(
        task,
        opened.path,
        None if before is None else before.path,
        dict(settings or {}),
        lenient,
        device,
        autocast,
        threads or torch.get_num_threads(),
    )
    if design is not None:
        check(trained, design)
    held = load_task(task, settings, machine.Machine(device, autocast))
    store = default_store() if trials is None else Path(trials)
    with machine.threads(trained.threads), chosen(workers, design.arms if design else ()) as run:
        place = Place(trained, run if engine else None, store, progress)
        case = Case(held, opened, place, before, lenient=lenient, suspects=suspects)
        verdict, comparison = climb(case, all_rungs=all_rungs), None
        if design is not None:
            alike = replace(trained, threads=threads or 1)
            comparison = compare_arms(alike, design, engine=run, store=store, progress=progress)
    seen = Experiment(opened.path, trained.earlier, task, verdict, tuple(case.rungs))
    return Rerun(
        seen.checkpoint,
        seen.earlier,
        task,
        verdict,
        seen.rungs,
        (*case.dynamics.arms.values(), *(comparison.arms if comparison else ())),
        (*opened.not_judged, *case.not_judged),
        time.perf_counter() - start,
        comparison,
        judge(Evidence(checkpoint=opened, experiment=seen), select=["EXP"]),
    )
