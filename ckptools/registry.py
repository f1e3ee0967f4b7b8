"""The one way in which anything pluggable is registered and found.

A registry owns one kind of plug-in (formats, layouts, rules, ...).  Its members are the decorated
objects of every module in one package of ours plus whatever other installed packages announce
under the entry-point group of the same name::

    formats = Registry("format", package="ckptools.formats", group="ckptools.formats")

    @formats.register("torch-zip")
    class TorchZip: ...

Lying in the folder is enough to be found.  A module that fails to import is a loud error: a
plug-in must never vanish silently.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Member = TypeVar("Member")
Decorated = TypeVar("Decorated")


def announced(group: str) -> tuple[EntryPoint, ...]:
    """Return what other installed packages announce under ``group``."""
    if f"[{group}]" not in _announcements(tuple(sys.path)):
        return ()
    from importlib.metadata import entry_points  # with what it imports, a tenth of a listing's time

    return tuple(entry_points(group=group))


@lru_cache(maxsize=4)
def _announcements(path: tuple[str, ...]) -> str:
    """Return the texts in which the packages in these folders announce what they have."""
    return "\n".join(text for folder in path for text in _announcements_in(folder or "."))


def _announcements_in(folder: str) -> Iterator[str]:
    try:
        names = [name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info"))]
    except OSError:  # sys.path may name what is not there
        return
    for name in names:
        try:
            with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                yield file.read()
        except (OSError, UnicodeDecodeError):  # most packages announce nothing
            continue


class Registry(Generic[Member]):
    """Named members of one kind, discovered on first use.

    Parameters
    ----------
    kind: the word for one member, used in messages.
    package: the package whose modules (at any depth) register members on import.
    group: the entry-point group through which other packages add members.
    """

    def __init__(self, kind: str, *, package: str, group: str) -> None:
        self.kind = kind
        self.package = package
        self.group = group
        self._members: dict[str, Member] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[Decorated], Decorated]:
        """Return a decorator that adds an object under ``name``; a taken name raises ValueError."""

        def add(member: Decorated) -> Decorated:
            self.add(name, member)  # type: ignore[arg-type]
            return member

        return add

    def add(self, name: str, member: Member) -> None:
        """Add ``member`` under ``name``; a taken name raises ValueError."""
        if name in self._members:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._members[name] = member

    def discover(self) -> None:
        """Import every module of the package and every entry point, once."""
        if self._discovered:
            return
        self._discovered = True  # a member may ask for its siblings while it is imported
        complete = False
        try:
            root = importlib.import_module(self.package)
            for module in pkgutil.walk_packages(root.__path__, prefix=f"{self.package}."):
                importlib.import_module(module.name)
            for point in announced(self.group):
                point.load()
            complete = True
        finally:
            self._discovered = complete

    def names(self) -> list[str]:
        """Return the names of all members, sorted."""
        self.discover()
        return sorted(self._members)

    def get(self, name: str) -> Member:
        """Return the member called ``name``; KeyError lists the known names."""
        self.discover()
        try:
            return self._members[name]
        except KeyError:
            known = ", ".join(sorted(self._members))
            raise KeyError(f"no {self.kind} named {name!r}; known: {known}") from None

    def items(self) -> list[tuple[str, Member]]:
        """Return (name, member) pairs, sorted by name."""
        self.discover()
        return sorted(self._members.items())

    def __iter__(self) -> Iterator[Member]:
        """Iterate over the members in the order of their names."""
        return (member for _, member in self.items())

    def __len__(self) -> int:
        """Return the number of members."""
        self.discover()
        return len(self._members)
