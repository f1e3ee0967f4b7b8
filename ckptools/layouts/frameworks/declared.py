"""Layouts of one's own: where a home-made file keeps its weights and optimizers.

The configuration file says it, keys joined by dots::

    [layouts.agents]
    weights = ["agent.net", "agent.target"]
    optimizers = ["agent.adam"]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ckptools.layouts.assembly import Assembly
from ckptools.layouts.modules import is_module
from ckptools.layouts.nodes import attributes, mapping
from ckptools.layouts.registry import layouts
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwnLayout:
    """Where one kind of file keeps what; it is this layout if every path is there.

    Attributes
    ----------
    name: what the layout is called in reports.
    weights: paths to state dicts or whole modules.
    optimizers: paths to optimizers' state dicts.
    """

    name: str
    weights: tuple[Path, ...]
    optimizers: tuple[Path, ...] = ()


class Declared:
    """All layouts that were declared, as one: the first that fits reads the file."""

    def __init__(self) -> None:
        self._known: tuple[OwnLayout, ...] = ()

    def declare(self, own: Iterable[OwnLayout]) -> None:
        """Take these layouts in place of those declared before."""
        self._known = tuple(own)

    def matches(self, container: Container) -> float:
        """Return 0.99 where everything that some declaration names is there."""
        return 0.99 if self._fitting(container) is not None else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return what is declared, and everything else sorted as in any training checkpoint."""
        own = self._fitting(container)
        assert own is not None
        assembly = Assembly(container, own.name)
        for path in own.weights:
            node = _at(container.root, path)
            (assembly.module if is_module(node) else assembly.weights)(node, path)
        for path in own.optimizers:
            assembly.optimizer(".".join(path), _at(container.root, path))
        for path, node in _beside(container.root, {*own.weights, *own.optimizers}):
            assembly.entry(".".join(path), node)
        return assembly.checkpoint()

    def _fitting(self, container: Container) -> OwnLayout | None:
        for own in self._known:
            paths = (*own.weights, *own.optimizers)
            if all(_at(container.root, path) is not None for path in paths):
                return own
        return None


def _members(node: Any) -> dict[str, Any]:
    below = mapping(node)
    return attributes(node) if below is None else below


def _at(node: Any, path: Path) -> Any:
    """Return what lies at a path, None where nothing does."""
    for key in path:
        node = _members(node).get(key)
    return node


def _beside(root: Any, taken: set[Path]) -> Iterator[tuple[Path, Any]]:
    """Iterate over what lies beside the paths taken, at every level that they pass."""
    passed = [(), *sorted({path[:end] for path in taken for end in range(1, len(path))})]
    for start in passed:
        for key, node in _members(_at(root, start)).items():
            if (*start, key) not in taken and (*start, key) not in passed:
                yield (*start, key), node


declared = Declared()
layouts.add("declared", declared)
