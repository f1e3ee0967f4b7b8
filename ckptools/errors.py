"""Every exception of ckptools, one class per reaction.

    CkptoolsError
    ├── OpenError                 the input cannot be read
    │   ├── UnknownFormat         no reader recognises the bytes
    │   ├── CorruptFile           a reader recognises them, and they contradict themselves
    │   ├── MissingShard          an index names a file that is not there
    │   └── AmbiguousLayout       several checkpoints could be meant
    ├── MeasureError              a statistic cannot be computed
    ├── OperationError            a surgery request does not fit the checkpoint
    │   ├── NoSuchTensor          a pattern matches nothing (the nearest names are given)
    │   ├── ShapeMismatch
    │   └── InvalidParameter      all wrong parameters at once
    ├── WriteError                the new file could not be written; the old one is untouched
    │   ├── WouldOverwrite
    │   ├── VerificationFailed
    │   └── NoSpace
    ├── RerunError
    │   ├── TaskError             the user's task broke its protocol
    │   └── NotComparable         trials that differ in more than their arm
    └── SettingsError             configuration file or option values

A message says what happened; ``where`` names the file, record or tensor; ``next`` says what to do.
"""

from __future__ import annotations


class CkptoolsError(Exception):
    """Base of everything that ckptools raises on purpose.

    Parameters
    ----------
    message: what happened, in one line.
    where: the file, record or tensor concerned.
    next: what the user can do now.
    """

    def __init__(self, message: str, *, where: str | None = None, next: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.next = next

    def __str__(self) -> str:
        """Return one line: where, what, and what to do next."""
        place = f"{self.where}: " if self.where else ""
        advice = f" — {self.next}" if self.next else ""
        return f"{place}{self.message}{advice}"


class OpenError(CkptoolsError):
    """The input cannot be read."""


class UnknownFormat(OpenError):
    """No reader recognises the bytes."""


class CorruptFile(OpenError):
    """A reader recognises the bytes, and they contradict themselves."""


class MissingShard(OpenError):
    """An index names a file that is not there."""


class AmbiguousLayout(OpenError):
    """Several checkpoints could be meant."""


class MeasureError(CkptoolsError):
    """A statistic cannot be computed."""


class OperationError(CkptoolsError):
    """A surgery request does not fit the checkpoint."""


class NoSuchTensor(OperationError):
    """A pattern matches nothing."""


class ShapeMismatch(OperationError):
    """Two tensors that must agree in shape do not."""


class InvalidParameter(OperationError):
    """Parameters of an operation are wrong; the message lists all of them."""


class WriteError(CkptoolsError):
    """The new file could not be written; the old one is untouched."""


class WouldOverwrite(WriteError):
    """The target exists."""


class VerificationFailed(WriteError):
    """The file written does not read back as planned."""


class NoSpace(WriteError):
    """The disk cannot hold the new file."""


class RerunError(CkptoolsError):
    """An experiment cannot be run."""


class TaskError(RerunError):
    """The user's task broke its protocol."""


class NotComparable(RerunError):
    """Trials differ in more than their arm."""


class SettingsError(CkptoolsError):
    """A configuration file or an option value is wrong."""
