"""Small files kept in memory while several readers go through them."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.errors import CkptoolsError
from ckptools.sources.local import LocalSource
from ckptools.types.container import Container

#: Bytes of a checkpoint up to which it is kept: twice that much is in memory when two are compared.
SMALL = 192 << 20


class Kept:
    """The files that are in memory now; those that are no longer asked for are given back."""

    def __init__(self) -> None:
        self._sources: list[LocalSource] = []

    def keep(self, *containers: Container) -> None:
        """Keep the files of these containers, as far as they are small, and no others."""
        wanted = [source for container in containers for source in _small(container)]
        for source in self._sources:
            if all(source is not other for other in wanted):
                source.drop()
        self._sources = [source for source in wanted if _kept(source)]


def _small(container: Container) -> list[LocalSource]:
    """Return the local files of a container, none where they are not small together."""
    found = {id(one): one for one in _sources(container) if isinstance(one, LocalSource)}
    return list(found.values()) if sum(one.size for one in found.values()) <= SMALL else []


def _sources(container: Container) -> Iterator[object]:
    work = [container]
    for one in work:
        yield one.source
        work.extend(one.parts.values())


def _kept(source: LocalSource) -> bool:
    """Return whether a file could be read into memory; what is broken is told where it is read."""
    try:
        source.keep()
    except CkptoolsError:
        return False
    return True
