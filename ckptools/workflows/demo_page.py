"""The page of the demo: seven short chapters, each with the command that a user would type."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ckptools.errors import CkptoolsError
from ckptools.types.blocks import Block, Column, FindingList, Heading, Paragraph, Table
from ckptools.types.wording import say

if TYPE_CHECKING:
    from ckptools.workflows.demo import Demonstration
    from ckptools.workflows.rerun import Rerun

_KEYS = ("path", "loss", "mAP", "valid")


def story(demo: Demonstration) -> list[Block]:
    """Return the whole page."""
    return [
        Heading(say("One damaged checkpoint, from the first doubt to the cure"), level=1),
        *_training(demo),
        *_planting(demo),
        *_inspecting(demo),
        *_following(demo),
        *_asking(demo),
        *_curing(demo),
        *_next(demo),
    ]


def shown(path: Path) -> str:
    """Return the path as a user would type it: relative to here when it lies below."""
    here = Path.cwd()
    absolute = path.absolute()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def command(*words: str | Path) -> str:
    """Return a command line of ours."""
    parts = [shown(word) if isinstance(word, Path) else word for word in words]
    return shlex.join(["ckptools", *parts])


def _training(demo: Demonstration) -> list[Block]:
    text = say(
        "A Q-Former lane detector was trained on synthetic scenes for {last_epoch} epochs; its "
        "checkpoints and logs lie in {shown}.",
        last_epoch=demo.last_epoch,
        shown=shown(demo.folder),
    )
    rows = [{"path": f"checkpoint_epoch_{one['epoch']}.pth", **one} for one in demo.epochs]
    return [
        Heading(say("1 · Training")),
        Paragraph(text),
        Table(_columns(), tuple({key: row[key] for key in _KEYS} for row in rows)),
    ]


def _columns() -> tuple[Column, ...]:
    return (
        Column("path", say("checkpoint"), "name"),
        Column("loss", say("validation loss"), "number"),
        Column("mAP", say("mAP"), "percent"),
        Column("valid", say("valid predictions per scene"), "number"),
    )


def _planting(demo: Demonstration) -> list[Block]:
    text = say(
        "{name} now has the fault {fault!r} in {target}: {explanation} The healthy file is kept "
        "as {healthy}.",
        name=demo.damaged.name,
        fault=demo.fault,
        target=demo.target,
        explanation=demo.explanation,
        healthy=shown(demo.healthy),
    )
    return [Heading(say("2 · The damage")), Paragraph(text), Paragraph(_harm(demo))]


def _harm(demo: Demonstration) -> str:
    if demo.judged is None:
        return say("The file can no longer be loaded, so its validation loss is unknown.")
    before = demo.judged_before
    return say(
        "Its validation loss is {loss:.2f} instead of {loss_before:.2f}, its mAP {mAP:.1%} instead "
        "of {mAP_before:.1%}.",
        loss=demo.judged["loss"],
        loss_before=before["loss"],
        mAP=demo.judged["mAP"],
        mAP_before=before["mAP"],
    )


def _inspecting(demo: Demonstration) -> list[Block]:
    blocks: list[Block] = [
        Heading(say("3 · Is this file sick?")),
        Paragraph(command("inspect", "--spectrum", demo.damaged)),
    ]
    if demo.findings:
        blocks.append(FindingList(demo.findings))
    grave = sum(one.severity != "note" for one in demo.before.findings)
    if grave:
        words = say("{grave} false alarms on the healthy file", grave=grave)
        blocks.append(Paragraph(words, "caution"))
    else:
        words = say("no finding above a note on the healthy file")
        blocks.append(Paragraph(words, "good"))
    return [*blocks, _conclusion(demo)]


def _conclusion(demo: Demonstration) -> Paragraph:
    if demo.named:
        best = demo.named[0]
        text = say(
            "{code} {name} names {target}: found",
            code=best.code,
            name=best.name,
            target=best.target,
        )
        return Paragraph(text, "good")
    if demo.findings:
        text = say("something was found, and none of it names {target}", target=demo.target)
        return Paragraph(text, "caution")
    return Paragraph(
        say(
            "not found: this fault does not show in one file by itself (the weights look like any "
            "other weights); it takes a comparison with the checkpoint before"
        ),
        "caution",
    )


def _following(demo: Demonstration) -> list[Block]:
    blocks: list[Block] = [
        Heading(say("4 · Since when?")),
        Paragraph(command("timeline", demo.folder)),
    ]
    onset, good = demo.series.onset, demo.series.last_good
    if onset is None:
        text = say("no checkpoint of the run turns away from those before it")
        return [*blocks, Paragraph(text, "caution")]
    text = say(
        "since epoch {epoch}: {code} in {target}; the last good checkpoint is {good}",
        epoch=onset["epoch"],
        code=onset["code"],
        target=onset["target"],
        good="none" if good is None else Path(good["path"]).name,
    )
    return [*blocks, Paragraph(text, "good" if onset["epoch"] == demo.last_epoch else "caution")]


def _asking(demo: Demonstration) -> list[Block]:
    log = f"log={shown(demo.folder / 'train.jsonl')}"
    words = ("--task", "ckptools.lanes.task:Lanes", "--set", "size=small", "--set", log)
    blocks: list[Block] = [
        Heading(say("5 · Was it the checkpoint?")),
        Paragraph(command("rerun", demo.damaged, "--earlier", demo.earlier, *words)),
    ]
    if isinstance(demo.experiment, CkptoolsError):
        text = say("no experiment: {reason}", reason=demo.experiment.message)
        return [*blocks, Paragraph(text, "caution")]
    return [*blocks, *_verdict(demo, demo.experiment)]


def _verdict(demo: Demonstration, found: Rerun) -> list[Block]:
    verdict = found.verdict
    right = verdict.decision == "supported" and (
        verdict.cause == "optimizer" or demo.hit(verdict.module)
    )
    text = say(
        "{decision}, cause: {cause}, module: {module} ({seconds:.1f} s, {evaluations} evaluations)",
        decision=verdict.decision,
        cause=verdict.cause,
        module=verdict.module or "none",
        seconds=found.seconds,
        evaluations=sum(rung.evaluations for rung in found.rungs),
    )
    return [Paragraph(text, "good" if right else "caution"), Paragraph(verdict.reason)]


def _curing(demo: Demonstration) -> list[Block]:
    heading = Heading(say("6 · The cure"))
    if demo.cure is None:
        text = say(
            "The verdict names nothing that surgery could mend; go on from {earlier}.",
            earlier=shown(demo.earlier),
        )
        return [heading, Paragraph(text)]
    given = demo.cure.parameters
    words: list[str | Path] = [demo.cure.operation, demo.damaged]
    if demo.cure.operation == "transplant":
        words += ["--module", *given["module"], "--from", demo.earlier]
    rows = [
        {"path": say("healthy"), **demo.judged_before},
        {"path": say("damaged"), **(demo.judged or {})},
        {"path": Path(demo.cure.output["path"]).name, **(demo.recovered or {})},
    ]
    blocks: list[Block] = [heading, Paragraph(command(*words))]
    if demo.cure.operation == "reset-optimizer":
        text = say(
            "The optimizer's state does not show in the loss before training; the arms of the "
            "experiment tell what it does: {losses}.",
            losses=_after_training(demo),
        )
        blocks.append(Paragraph(text))
    table = Table(_columns(), tuple({key: row.get(key) for key in _KEYS} for row in rows))
    return [*blocks, Heading(say("7 · Recovery")), table]


def _after_training(demo: Demonstration) -> str:
    """Return the mean loss of each arm after the short training."""
    assert not isinstance(demo.experiment, CkptoolsError)
    means = {
        arm.name: sum(one.evaluate["loss"] for one in arm.trials) / len(arm.trials)
        for arm in demo.experiment.arms
        if arm.trials
    }
    return ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())


def _next(demo: Demonstration) -> list[Block]:
    lines = [command("inspect", demo.damaged, "--by", "tensor", "--sort", "rms")]
    if demo.named:
        lines.append(command("explain", demo.named[0].code))
    if demo.cure is not None:
        cured = Path(demo.cure.output["path"])
        lines.append(command("diff", demo.damaged, cured))
        lines.append(command("undo", cured.with_suffix(".receipt.json")))
    return [Heading(say("Look yourself")), Paragraph("\n".join(f"- {line}" for line in lines))]
