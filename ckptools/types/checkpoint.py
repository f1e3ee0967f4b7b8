"""What a layout gives: which tensors are weights, which are optimizer state, what the run was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ckptools.types.container import Container
from ckptools.types.tensor import TensorRef


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """One entry of a weight set.

    Attributes
    ----------
    name: without wrapper prefixes.
    key: the file's own spelling.
    set: the weight set it belongs to (``model``, ``ema``, ``generator``...).
    kind: "parameter" or "buffer".
    stack, block: the stack of repeated blocks it lies in and its index there, or None.
    module: the non-overlapping unit (a block, or the outermost named child outside stacks).
    role: attention, mlp, norm, embedding, head, lora, conv, projector, query, or None.
    """

    name: str
    key: str
    set: str
    ref: TensorRef
    kind: str = "parameter"
    stack: str | None = None
    block: int | None = None
    module: str = ""
    role: str | None = None


@dataclass(frozen=True, slots=True)
class WeightSet:
    """Tensors that are loaded together by one ``load_state_dict``.

    ``path`` holds the keys that lead to them from the top of the file (none for a bare state
    dict; attribute names for a pickled module).
    """

    name: str
    tensors: tuple[NamedTensor, ...]
    prefixes: tuple[str, ...] = ()
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParameterState:
    """The optimizer's memory of one parameter.

    Attributes
    ----------
    id: what the file calls it (an index, an address, or a name).
    group: index of its parameter group.
    position: its place in the group's list.
    slots: tensors by slot name (exp_avg, exp_avg_sq, momentum_buffer, ...), scalars excluded.
    step: own step count, or None.
    scalars: other scalars kept beside the slots.
    has_state: whether the file holds any state for it.
    name: the parameter it belongs to, or None; ``standing`` tells how sure that is
        ("sure", "by_order", "ambiguous", "unknown").
    """

    id: Any
    group: int
    position: int
    slots: dict[str, TensorRef] = field(default_factory=dict)
    step: float | None = None
    scalars: dict[str, Any] = field(default_factory=dict)
    has_state: bool = True
    name: str | None = None
    standing: str = "unknown"


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """One parameter group with its settings as saved (lr, betas, eps, weight_decay, ...)."""

    index: int
    name: str | None
    settings: dict[str, Any]
    ids: tuple[Any, ...]
    param_names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """One optimizer as saved.

    Attributes
    ----------
    key: where it lies in the file, e.g. ``optimizer_state_dict``.
    kind: Adam, AdamW, AMSGrad, SGD, Adagrad, RMSprop, Adafactor, Lion, Adam8bit, or unknown.
    set: the weight set it trains, or None when unknown.
    matched_by: how states got their names: names, order, shapes, evidence, model or none.
    """

    key: str
    kind: str
    set: str | None
    groups: tuple[ParameterGroup, ...]
    states: tuple[ParameterState, ...]
    matched_by: str = "none"


@dataclass(frozen=True, slots=True)
class RunState:
    """Where the run stood: counters, and whatever else was saved beside the weights.

    ``hyperparameters`` are the saved arguments as plain values; ``scheduler`` and ``scaler`` the
    plain values of their state dicts; ``extras`` maps every other top-level key to a short
    description of what lies there.  ``counters`` holds every counter that the file keeps of the
    run itself, by its key or dotted path: ``step`` may come from the optimizer instead.
    """

    epoch: int | None = None
    step: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    has_rng: bool = False
    has_sampler: bool = False
    extras: dict[str, str] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A container understood: weight sets, optimizers and run state.

    Attributes
    ----------
    layout: the registered name, e.g. ``training-dict``.
    other_tensors: tensors of the file that are neither weights nor optimizer slots, by path.
    not_judged: parts of the input that were not looked at, with the reason.
    """

    path: str
    container: Container
    layout: str
    weight_sets: tuple[WeightSet, ...] = ()
    optimizers: tuple[OptimizerState, ...] = ()
    run: RunState = field(default_factory=RunState)
    other_tensors: dict[str, TensorRef] = field(default_factory=dict)
    not_judged: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        """The container's format."""
        return self.container.format

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Wrapper prefixes found in any weight set, outermost first."""
        seen: dict[str, None] = {}
        for weights in self.weight_sets:
            seen.update(dict.fromkeys(weights.prefixes))
        return tuple(seen)

    def tensors(self) -> Iterator[NamedTensor]:
        """Iterate over the tensors of all weight sets, in file order."""
        for weights in self.weight_sets:
            yield from weights.tensors
