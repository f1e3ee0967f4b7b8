"""The other end of the pool: reads specifications and writes trials, a JSON line each.

    python -m ckptools.rerun.engines.worker

Whatever the task prints goes to stderr.  An exception that is not ours ends the process with a
traceback there; the pool tells that apart from a process that was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from typing import Any, TextIO

from ckptools import errors
from ckptools.errors import CkptoolsError


def main() -> None:
    """Answer requests until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool ends its workers itself
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    serve(sys.stdin, answers)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer every line of ``requests`` with one of ``answers``."""
    from ckptools.rerun.trials import Bencher, TrialSpec

    bench = Bencher()
    for line in requests:
        try:
            found: dict[str, Any] = {"trial": asdict(bench(TrialSpec.read(json.loads(line))))}
        except CkptoolsError as error:
            found = {"error": packed(error)}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def packed(error: CkptoolsError) -> dict[str, Any]:
    """Return an error as plain data, under the public class that it belongs to."""
    kinds = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return {
        "kind": next(kinds),
        "message": error.message,
        "where": error.where,
        "next": error.next,
    }


def unpacked(document: dict[str, Any]) -> CkptoolsError:
    """Return the error that :func:`packed` wrote."""
    kind = getattr(errors, document["kind"])
    found: CkptoolsError = kind(document["message"], where=document["where"], next=document["next"])
    return found


if __name__ == "__main__":
    main()
