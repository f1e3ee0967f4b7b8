"""Papers that a killed run had set aside: given back to the output that they belong to."""

from __future__ import annotations

from pathlib import Path

from ckptools.errors import CorruptFile, WriteError
from ckptools.surgery import undo as way_back
from ckptools.surgery.atomic import give_back, stood_aside
from ckptools.surgery.identity import fits
from ckptools.types.wording import say


def settle(undo: Path, receipt: Path) -> None:
    """Give papers their names again that a killed run had set aside.

    A run that replaces an output sets the papers of the old one aside.  Where it was killed after
    its own took their names, the output tells whose way back is right; the other's is deleted.

    Raises
    ------
    WriteError: neither leads back from what is there.
    """
    give_back(undo)
    give_back(receipt)
    asides = stood_aside(undo), stood_aside(receipt)
    if not any(asides):
        return
    right = next((one for one in (undo, *asides[0]) if _leads_back(one)), None)
    if right is None:
        (left, *_) = (*asides[0], *asides[1])
        raise WriteError(
            say("is what an interrupted run had set aside, and belongs to nothing that is there"),
            where=str(left),
            next=say("move it elsewhere, or delete it"),
        )
    if right != undo:
        right.replace(undo)
        before = receipt.with_name(right.name.replace(undo.name, receipt.name))
        if before.exists():
            before.replace(receipt)
    for one in (*stood_aside(undo), *stood_aside(receipt)):
        one.unlink()


def _leads_back(undo: Path) -> bool:
    """Return whether the output of an undo file is there."""
    try:
        header = way_back.read(undo)
    except CorruptFile:
        return False
    written = Path(header.output["path"])
    moved = undo.with_name(written.name)
    return any(
        all(one.output is None or fits(path / one.name, one.output) for one in header.files)
        for path in (written, moved)
        if path.exists()
    )
