"""EXP109: the outputs of a module have lost their rank, or its tokens have become one."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.experiment.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule("EXP109", "collapsed-features", severity="warning", confidence="hint", needs=("experiment",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The outputs of a module have lost their rank, or its tokens have become one.

    What it means
        Effective rank has halved since the earlier checkpoint, or tokens of one sample point the
        same way (mean cosine above .99).

    Why it matters
        Whatever reads these features cannot tell samples or places apart.

    False alarms
        No rate yet; hint. 0 of 96 healthy verdicts: 32 of the bundled example, 64 of eight other
        tasks. Fixes were made after looking at seven of these (one gave 2 of 8 at first sight);
        the 8 of the eighth bound the rate at 31 %, the 32 at 9 %.

    What to do
        Look at the module and at what feeds it; restore it from the earlier checkpoint to see.

    References
        Roy & Vetterli 2007 (effective rank).
    """
    rung = evidence.experiment.rung("features")
    for module in rung.evidence.get("collapsed", ()) if rung is not None else ():
        now = rung.evidence["modules"][module]
        yield found(
            module,
            say(
                "the outputs of {module} have collapsed: effective rank {rank:.1f} of {width}",
                module=module,
                rank=now["rank"],
                width=now["width"],
            ),
            evidence=now,
            advice=again(evidence.experiment, "--suspect", module),
        )
