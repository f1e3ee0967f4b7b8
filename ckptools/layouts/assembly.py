"""What all layouts share: sorting the entries of a tree into weights, optimizers and the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ckptools.layouts import optimizer_state, parameter_names
from ckptools.layouts.averages import averages, may_hold_averages
from ckptools.layouts.modules import is_module, module_tensors
from ckptools.layouts.nodes import (
    attributes,
    holds_tensors,
    key_text,
    mapping,
    sequence,
    tensors_below,
)
from ckptools.layouts.pairing import paired
from ckptools.layouts.run_state import RunNotes
from ckptools.layouts.weights import broken_tensors, tensor_like, tensors_of, weight_set
from ckptools.names import prefixes
from ckptools.types.checkpoint import Checkpoint, OptimizerState, WeightSet
from ckptools.types.container import Container
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import class_name, entries, unwrap
from ckptools.types.wording import say

#: Tensors listed that are neither weights nor optimizer state.
OTHERS = 100_000
#: Broken tensors that are named; more are counted.
SHOWN = 20
#: State dicts are looked for this many mappings deep, in mappings of this many members.
NESTING, MEMBERS = 4, 1000

#: Words in keys that only say "here are weights".
_PLAIN_WORDS = frozenset(
    (
        *("state", "dict", "statedict", "sd", "model", "models", "module", "net", "network"),
        *("weights", "weight", "params", "parameters", "checkpoint", "ckpt"),
    )
)
#: Keys under which weights are expected, whatever their names look like.
_EXPECTED = re.compile(
    r"state_?dict|^(?:model|models|module|net|network|weights|params|ema)$|_model$|^model_",
    re.IGNORECASE,
)
_TELLING_NAME = re.compile(r"\.|(?:^|_)(?:weight|bias|running_mean|kernel|gamma)(?:_|$)")
_NEVER = re.compile(
    r"(?:^|_)rng|random_state|(?:^|_)(?:optim(?:izer)?s?|(?:lr_?)?sched(?:uler)?s?)(?:_|$)|scaler",
    re.IGNORECASE,
)


@dataclass
class Assembly:
    """A checkpoint while it is put together.

    Layouts call ``weights``, ``module``, ``optimizer`` and ``entry`` for what they find, then
    ``checkpoint``.  No tree, however odd, makes any of them raise.
    """

    container: Container
    layout: str
    sets: dict[str, WeightSet] = field(default_factory=dict)
    optimizers: list[OptimizerState] = field(default_factory=list)
    run: RunNotes = field(default_factory=RunNotes)
    others: dict[str, TensorRef] = field(default_factory=dict)
    not_judged: list[str] = field(default_factory=list)
    _barren: set[int] = field(default_factory=set)
    _listed: set[int] = field(default_factory=set)

    def entry(self, key: str, node: Any) -> None:
        """Sort in one top-level entry."""
        optimizers = optimizer_state.find_optimizers(node, key)
        if optimizers:
            for path, one in optimizers:
                self.optimizer(path, one)
            self._beside_optimizer(key, node)
        elif _NEVER.search(key) or not self._weights_below((key,), node):
            self._note(key, node)

    def weights(self, node: Any, path: tuple[str, ...], name: str | None = None) -> None:
        """Add a state dict as a weight set, and as one more for each average inside it."""
        tensors = tensors_of(node)
        names = prefixes.strip(tensors)[1] if may_hold_averages(tensors) else {}
        inside = averages(names.values())
        followers = {one for members in inside.values() for one in members}
        own = {key: ref for key, ref in tensors.items() if names.get(key) not in followers}
        name = self._free_name(name or set_name(path), path)
        self.sets[name] = weight_set(name, own, path)
        for child, members in inside.items():
            held = {key: members[names[key]] for key in tensors if names[key] in members}
            name = self._free_name(set_name((child,)), (*path, child))
            part = {key: tensors[key] for key in held}
            self.sets[name] = weight_set(name, part, path, names=held)
        self._note_broken(node, ".".join(path))

    def module(self, node: Any, path: tuple[str, ...], name: str | None = None) -> None:
        """Add a whole pickled module as a weight set."""
        found = module_tensors(node)
        where = ".".join(path)
        self.run.extras[where or "root"] = f"whole module of class {class_name(node)}"
        if found.tensors:
            name = self._free_name(name or set_name(path), path)
            self.sets[name] = weight_set(name, found.tensors, path, found.buffers)
        start = f"{where}." if where else ""
        self.others.update((start + key, ref) for key, ref in found.others.items())
        if found.cut:
            self.not_judged.append(
                say("{where}: a module tree too large to be walked whole", where=where or "root")
            )

    def optimizer(self, path: str, node: Any) -> None:
        """Add an optimizer's state dict."""
        self.optimizers.append(optimizer_state.parse(node, path))

    def other_tensors(self, node: Any, path: str) -> None:
        """List the tensors below ``node`` as neither weights nor optimizer state."""
        for where, ref in tensors_below(node, path, self._listed):
            if len(self.others) >= OTHERS:
                self.not_judged.append(
                    say("{path}: more than {limit:,} tensors", path=path, limit=OTHERS)
                )
                return
            self.others[where] = ref

    def checkpoint(self) -> Checkpoint:
        """Return everything found, optimizers matched to the sets they train."""
        sets = tuple(self.sets.values())
        by_name = {one.name: one for one in sets}
        optimizers = tuple(
            parameter_names.assign_names(one, by_name[one.set]) if one.set in by_name else one
            for one in paired(self.optimizers, sets)
        )
        return Checkpoint(
            path=self.container.path,
            container=self.container,
            layout=self.layout,
            weight_sets=sets,
            optimizers=optimizers,
            run=self.run.state(_steps_taken(optimizers)),
            other_tensors=self.others,
            not_judged=(*self.container.not_judged, *self.not_judged),
        )

    def _weights_below(self, start: tuple[str, ...], node: Any) -> bool:
        """Add the state dicts and modules at or below an entry; return whether there were any."""
        before = len(self.sets)
        work: list[tuple[tuple[str, ...], Any]] = [(start, node)]
        leftovers: list[tuple[tuple[str, ...], Any]] = []
        while work:
            path, current = work.pop()
            if is_module(current):
                self.module(current, path)
            elif is_state_dict(current, path[-1]):
                self.weights(current, path)
            elif len(path) < NESTING and (below := self._named_with_tensors(current)):
                work.extend((((*path, name), one) for name, one in reversed(below.items())))
            else:
                leftovers.append((path, current))
        if len(self.sets) == before:
            return False
        for path, current in leftovers:
            self._note(".".join(path) if len(path) > 2 else path[-1], current)
        return True

    def _named_with_tensors(self, node: Any) -> dict[str, Any]:
        """Return the members of a mapping, list or object that holds tensors, none for others."""
        below = mapping(node)
        if below is None:
            below = attributes(node) or None
        if below is None:
            listed = (sequence(node) or [])[: MEMBERS + 1]
            below = {str(index): one for index, one in enumerate(listed)}
        if len(below) > MEMBERS or not holds_tensors(node, self._barren):
            return {}
        return below

    def _note_broken(self, node: Any, where: str) -> None:
        """Say which tensors of a mapping contradict themselves, so that nothing was read."""
        broken = broken_tensors(node)
        start = f"{where}." if where else ""
        self.not_judged.extend(
            say(
                "{start}{key}: it contradicts itself, so it was not read as a tensor",
                start=start,
                key=key,
            )
            for key in broken[:SHOWN]
        )
        if len(broken) > SHOWN:
            self.not_judged.append(
                say(
                    "{where}: {number} more like it",
                    where=where or "state dict",
                    number=len(broken) - SHOWN,
                )
            )

    def _note(self, key: str, node: Any) -> None:
        self.run.note(key, node)
        if not isinstance(unwrap(node), TensorRef) or key in self.run.extras:
            self.other_tensors(node, key)

    def _beside_optimizer(self, key: str, node: Any) -> None:
        """Sort in what else lies in an entry that holds optimizers.

        Beside an optimizer that is a loss scaler (apex, mmengine), in an entry for everything
        (composer's ``state``) the weights, too.
        """
        if optimizer_state.is_optimizer(node):
            known = {"state", "param_groups", "defaults"}
            rest = {name: one for name, one in (mapping(node) or {}).items() if name not in known}
        else:
            below = mapping(node) or {}
            rest = {
                name: one
                for name, one in below.items()
                if not optimizer_state.find_optimizers(one, name)
            }
        for name, one in rest.items():
            inside = not (_NEVER.search(key) or _NEVER.search(name))
            if inside and self._weights_below((key, name), one):
                continue
            self._note(name if name in ("loss_scaler", "scaler") else f"{key}.{name}", one)

    def _free_name(self, name: str, path: tuple[str, ...]) -> str:
        """Return ``name``, or a longer one when it is taken."""
        if name not in self.sets:
            return name
        longer = ".".join(path) or name
        taken = 2
        while longer in self.sets:
            longer = f"{name}{taken}"
            taken += 1
        return longer


def set_name(path: tuple[str, ...]) -> str:
    """Return what to call the weight set that lies at ``path``: "model" where keys say no more."""
    name, number = "model", ""
    for key in reversed(path):
        if key.isdigit():
            number = key
            continue
        telling = [word for word in key.split("_") if word and word.lower() not in _PLAIN_WORDS]
        if telling:
            name = "_".join(telling)
            break
    return f"{name}_{number}" if number and len(path) > 1 else name


def is_state_dict(node: Any, key: str = "") -> bool:
    """Return whether a mapping looks like a state dict.

    Half of its entries or more are tensors; under a key that does not announce weights one of
    them must also have a name as parameters have.
    """
    pairs = entries(node)
    if not pairs:
        return False
    tensors = [name for name, value in pairs if tensor_like(value)]
    if not tensors or 2 * len(tensors) < len(pairs):
        return False
    if _EXPECTED.search(key):
        return True
    return any(_TELLING_NAME.search(key_text(name)) for name in tensors)


def _steps_taken(optimizers: tuple[OptimizerState, ...]) -> int | None:
    """Return the largest step count of the first optimizer that counts."""
    for optimizer in optimizers:
        steps = [state.step for state in optimizer.states if state.step is not None]
        finite = [step for step in steps if abs(step) < 1 << 62]
        if finite:
            return int(max(finite))
    return None
