"""FIL104: the pickle names what a checkpoint has no need of."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import inspect
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import FEW, count
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule("FIL104", "unsafe-global", severity="error", confidence="proof", needs=("checkpoint",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """Loading the file the usual way would import, and might call, something it does not need.

    What it means
        The pickle names a function or class outside of what tensors and training state are made
        of. "Dangerous" ones can run commands, open files or the network (an error); unknown
        ones are usually classes of the training code (a note). ckptools imported and ran none
        of them.

    Why it matters
        ``torch.load`` with ``weights_only=False`` executes whatever the file asks for.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). None in the statement
        that the file names it; whether it is meant to harm is not said.

    What to do
        Do not load a file with dangerous names. Load the others with ``weights_only=True``, or
        convert the weights to safetensors, which holds no code.

    References
        Python documentation, pickle ("the pickle module is not secure"); torch.load.
    """
    assert evidence.checkpoint is not None
    uses = evidence.checkpoint.container.globals
    dangerous = [use for use in uses if use.grade == "dangerous"]
    unknown = [use.name for use in uses if use.grade == "unknown"]
    for use in dangerous[:FEW]:
        yield found(
            use.name,
            say("the pickle names it; loading the file would let it run (nothing was run here)"),
            evidence={"grade": use.grade, "count": use.count, "dangerous": len(dangerous)},
            advice=inspect(evidence, "--list"),
        )
    if unknown:
        yield found(
            "pickle",
            say(
                "names {globals} beyond those of tensors and training state",
                globals=count(len(unknown), "global"),
            ),
            evidence={"grade": "unknown", "globals": unknown[:100]},
            severity="note",
            advice=inspect(evidence, "--list"),
        )
