"""What goes wrong, in one line and in the language of the user.

The sentences of an error are translated where it was raised with
:func:`~ckptools.types.wording.say`; what it is called is said in any case.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ckptools.errors import CkptoolsError
from ckptools.report.wording import ENGLISH, LANGUAGES, preferred, translate
from ckptools.types.wording import say

#: what the classes of the family tree mean, and what else may end a command
MEANINGS = {
    "CkptoolsError": say("the command failed"),
    "OpenError": say("the input cannot be read"),
    "UnknownFormat": say("unknown format"),
    "CorruptFile": say("corrupt file"),
    "MissingShard": say("a shard is missing"),
    "AmbiguousLayout": say("several checkpoints could be meant"),
    "MeasureError": say("a statistic cannot be computed"),
    "OperationError": say("the operation does not fit the checkpoint"),
    "NoSuchTensor": say("no such tensor"),
    "ShapeMismatch": say("shapes do not match"),
    "InvalidParameter": say("invalid parameter"),
    "WriteError": say("the output cannot be written"),
    "WouldOverwrite": say("a file would be overwritten"),
    "VerificationFailed": say("the written file failed its check"),
    "NoSpace": say("not enough free space"),
    "RerunError": say("the experiment cannot be run"),
    "TaskError": say("the task failed"),
    "NotComparable": say("the two cannot be compared"),
    "SettingsError": say("invalid settings"),
    "UsageError": say("invalid command line"),
}


def line(arguments: Sequence[str], kind: str, error: CkptoolsError) -> str:
    """Return what stderr says about an error of a kind."""
    lang = _language(arguments)
    if lang == ENGLISH:
        return f"{kind}: {error}"
    spoken = CkptoolsError(
        translate(error.message, lang),
        where=error.where,
        next=error.next and translate(error.next, lang),
    )
    return f"{translate(MEANINGS.get(kind, ''), lang)} {kind}: {spoken}".lstrip()


def _language(arguments: Sequence[str]) -> str:
    """Return the language asked for, even where the command line cannot be parsed."""
    joined = " ".join(arguments).replace("--lang=", "--lang ")
    wanted = joined.rpartition("--lang ")[2].split(" ")[0] if "--lang " in joined else ""
    return wanted if wanted in LANGUAGES else preferred(os.environ)
