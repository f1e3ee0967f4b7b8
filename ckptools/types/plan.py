"""What an operation will change, and what it did change."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from typing import Any

from ckptools.types.blocks import Block, Column, Facts, FindingList, Heading, Paragraph, Table
from ckptools.types.finding import Finding
from ckptools.types.wording import count, say


@dataclass(frozen=True, slots=True)
class TensorChange:
    """What happens to one tensor or object, in words that a person can read before it happens.

    Attributes
    ----------
    tensor: its name, or the path of an object in the file.
    action: copy, reinitialise, replace, drop, rename, cast, tie, not-carried, ...
    detail: why, or into what; one clause.
    initializer: the initialiser drawn from, for ``reinitialise``.
    before, after: a few statistics, where values change.
    slots: what happens to each optimizer slot of the parameter.
    """

    tensor: str
    action: str
    detail: str | None = None
    initializer: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    slots: dict[str, str] | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON object of the contract."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True)
class Receipt:
    """What a command that writes a checkpoint did, or with ``dry_run`` would do.

    Attributes
    ----------
    source, output: ``{"path", "sha256", "size_bytes"}``; the hash is None in a dry run, and where
        records were copied unread.  Then ``outline_sha256`` is the hash of all bytes outside of
        them (the archive's directory, which states their CRC-32, is inside), and ``crc32_records``
        how many they are.
    untouched: tensors that are bit-equal in source and output.
    verified: before the output got its name it was opened again and read back, all of it or, where
        ``sha256`` is None, its structure and everything that is new in it.
    undo: path of the patch that gives the source back, where there is one.
    unneeded: the output was there already, and nothing was written.
    not_carried: parts of the input that the output cannot hold.
    """

    operation: str
    parameters: dict[str, Any]
    source: dict[str, Any]
    output: dict[str, Any]
    changes: tuple[TensorChange, ...] = ()
    untouched: int = 0
    verified: bool = False
    dry_run: bool = False
    undo: str | None = None
    findings: tuple[Finding, ...] = ()
    not_judged: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    unneeded: bool = False

    @property
    def exit_code(self) -> int:
        """Return 0: a receipt exists only when everything went well."""
        return 0

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.receipt/1``."""
        return {
            "schema": "ckptools.receipt/1",
            "operation": self.operation,
            "parameters": self.parameters,
            "dry_run": self.dry_run,
            "source": self.source,
            "output": self.output,
            "changes": [change.document() for change in self.changes],
            "untouched": self.untouched,
            "verified": self.verified,
            "undo": self.undo,
            "notes": list(self.notes),
            "findings": [finding.document() for finding in self.findings],
            "crashed": [],
            "skipped": [],
            "not_judged": list(self.not_judged),
            "exit_code": self.exit_code,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a change."""
        return [change.document() for change in self.changes]

    def view(self) -> list[Block]:
        """Return the page: what was written where, the changes, what was left behind."""
        path = self.output["path"]
        blocks: list[Block] = [
            Heading(self._done(str(path)), level=1),
            Facts(self._facts()),
            FindingList(self.findings),
        ]
        if self.changes:
            blocks.append(_table(self.changes))
        blocks += [Paragraph(note) for note in self.notes]
        if self.undo:
            command = _undo(self.undo, force=self._in_place())
            blocks.append(Paragraph(say("undo with: {command}", command=command)))
        return blocks

    def _in_place(self) -> bool:
        """Return whether the source was replaced: a file, or the folder that its index lies in."""
        source, output = (os.path.abspath(str(one["path"])) for one in (self.source, self.output))
        return output in (source, os.path.dirname(source))

    def _done(self, path: str) -> str:
        """Return what was done, or would be."""
        if self.unneeded:
            return say("{operation}: {path} is there", operation=self.operation, path=path)
        if self.dry_run:
            return say("{operation}: would write {path}", operation=self.operation, path=path)
        if "outline_sha256" in self.output and self.operation != "undo":  # that reads everything
            return say(
                "{operation}: wrote {path} and read back what is new in it",
                operation=self.operation,
                path=path,
            )
        return say("{operation}: wrote and read back {path}", operation=self.operation, path=path)

    def _facts(self) -> tuple[tuple[str, str], ...]:
        source = (say("source"), str(self.source["path"]))
        kept = (say("untouched"), count(self.untouched, "tensor"))
        return (source, kept) if self.changes or self.untouched else (source,)


def _undo(path: str, *, force: bool) -> str:
    """Return the command of the way back, ready to be pasted into a shell."""
    safe = f"./{path}" if path.startswith("-") else path  # no option
    return shlex.join(("ckptools", "undo", safe, *(["--force"] if force else [])))


def _table(changes: tuple[TensorChange, ...]) -> Table:
    """Return the changes as a table without empty columns."""
    rows = tuple(
        {
            "tensor": change.tensor,
            "action": change.action,
            "detail": change.initializer or change.detail,
            "before": (change.before or {}).get("l2_norm"),
            "after": (change.after or {}).get("l2_norm"),
            "slots": _slots(change.slots),
        }
        for change in changes
    )
    columns = (
        Column("tensor", say("tensor"), "name"),
        Column("action", say("action")),
        Column("detail", say("with")),
        Column("before", say("norm before"), "number"),
        Column("after", say("after"), "number"),
        Column("slots", say("optimizer")),
    )
    used = tuple(c for c in columns if any(row[c.key] is not None for row in rows))
    return Table(used, rows, title=say("changes"))


def _slots(slots: dict[str, str] | None) -> str | None:
    """Return what happens to a parameter's slots in few words: one for all, or one for each."""
    if not slots:
        return None
    if len(set(slots.values())) == 1:
        return say(
            "{slots}: {what}", slots=count(len(slots), "slot"), what=next(iter(slots.values()))
        )
    return ", ".join(f"{name}: {what}" for name, what in slots.items())
