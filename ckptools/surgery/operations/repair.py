"""Mend what is broken: flipped bits, NaN and Inf, a file that was cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

import numpy as np

from ckptools.errors import OperationError
from ckptools.layouts import open as open_checkpoint
from ckptools.layouts.run_state import helper_kind
from ckptools.surgery import damage, lost_tree, places, slots, values
from ckptools.surgery.damage import Flip
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import (
    ANY_MODULE,
    FROM,
    SET,
    chosen,
    operation,
    states_of,
    weight_set,
)
from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState, ParameterState
from ckptools.types.container import Container
from ckptools.types.plan import TensorChange
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.wording import count, say

_State = tuple[OptimizerState, ParameterState]


@operation("repair", mends=damage.MENDED, module=ANY_MODULE, set=SET, from_checkpoint=FROM)
def repair(
    checkpoint: Checkpoint,
    *,
    module: tuple[str, ...] = (),
    set: str | None = None,
    from_checkpoint: str | None = None,
) -> Edits:
    """Mend what is broken: flipped bits, NaN and Inf, a file that was cut off.

    A bit whose flip explains a wrong checksum is turned back.  NaN and infinite values are taken
    from --from, an earlier epoch, else they become zero; so are negative second moments.  What a
    truncated file lacks is taken from --from; optimizer states may also be left out, weights not.
    """
    if checkpoint.layout == lost_tree.LAYOUT:
        return _records_alone(checkpoint)
    donor = _donor(checkpoint, from_checkpoint, set)
    work = _Repair(checkpoint, donor)
    if damage.cut_off(checkpoint.container):
        work.salvage()
    else:
        work.checksums()
    if not work.tree_damaged:
        work.values(chosen(checkpoint, module, set), bool(module))
    if not work.edits.changes:
        raise OperationError("there is nothing to repair", where=checkpoint.path)
    return work.edits


def _records_alone(checkpoint: Checkpoint) -> Edits:
    """Turn flipped bits back in a file whose pickle cannot be read; nothing else can be done."""
    work = _Repair(checkpoint, _Donor("", {}, {}))
    work.checksums()
    if not work.tree_damaged:
        raise OperationError(
            say("its pickle cannot be read, and no flipped bit explains that"),
            where=checkpoint.path,
            next=say("take an earlier epoch: without the pickle, values have no names"),
        )
    return work.edits


@dataclass(frozen=True)
class _Donor:
    """An earlier epoch: its tensors and states by name."""

    path: str
    tensors: dict[str, NamedTensor]
    states: dict[str, _State]

    def tensor(self, wanted: NamedTensor) -> TensorRef | None:
        """Return the whole counterpart of a tensor, None without one of its shape."""
        found = self.tensors.get(wanted.name)
        fits = found is not None and found.ref.shape == wanted.ref.shape and found.ref.readable
        return found.ref if fits and found is not None else None

    def slot(self, state: ParameterState, name: str, ref: TensorRef) -> TensorRef | None:
        """Return the whole counterpart of a slot."""
        other = self.states.get(state.name or "")
        found = other[1].slots.get(name) if other else None
        return found if found is not None and found.shape == ref.shape and found.readable else None


def _donor(checkpoint: Checkpoint, path: str | None, set: str | None) -> _Donor:
    if path is None:
        return _Donor("", {}, {})
    donor = open_checkpoint(path)
    tensors = weight_set(donor, set)
    states = states_of(donor, tensors) if checkpoint.optimizers else {}
    return _Donor(path, {tensor.name: tensor for tensor in tensors}, states)


@dataclass
class _Repair:
    """A repair under construction; ``mended`` are where storages whose damage is dealt with lie."""

    checkpoint: Checkpoint
    donor: _Donor
    edits: Edits = field(default_factory=Edits)
    mended: set[damage.Place] = field(default_factory=set)
    tree_damaged: bool = False

    @property
    def container(self) -> Container:
        """The container under repair."""
        return self.checkpoint.container

    # -- bytes -----------------------------------------------------------------------------

    def checksums(self) -> None:
        """Turn located flips back; take tensors whose record is damaged further from the donor."""
        flips, beyond = damage.checksums(self.container)
        for flip in flips:
            self.turn_back(flip)
        lost = {damage.place(record.storage) for record, _ in beyond}
        for record, fault in beyond:
            if record.storage.name == "data.pkl":
                raise OperationError(
                    say("its pickle is damaged beyond one bit: {fault}", fault=fault.message),
                    where=self.checkpoint.path,
                    next=say("take an earlier epoch: without the pickle, values have no names"),
                )
        if lost:
            self.replace(
                lambda storage: damage.place(storage) in lost, say("its record was damaged")
            )
            self.mended |= lost

    def turn_back(self, flip: Flip) -> None:
        """Give one bit its old value."""
        value = flip.mended
        self.edits.replace_values(flip.place, values.given([value]))
        self.mended.add(damage.place(flip.record.storage))
        self.tree_damaged |= flip.record.storage.name == "data.pkl"
        where = say(
            "bit {bit} of byte {byte:,} of {name}",
            bit=flip.bit,
            byte=flip.byte,
            name=flip.record.name,
        )
        users = ", ".join(self.users(flip.record.storage)) or flip.record.name
        self.edits.changes.append(TensorChange(users, "turn back", where))

    def users(self, storage: Storage) -> Iterator[str]:
        """Yield the names of what views a storage."""
        yield from (t.name for t in self.checkpoint.tensors() if self.views(t.ref, storage))
        for optimizer in self.checkpoint.optimizers:
            for state in optimizer.states:
                for slot, ref in state.slots.items():
                    if self.views(ref, storage):
                        yield f"{state.name or state.id} ({slot})"

    def views(self, ref: TensorRef, storage: Storage) -> bool:
        """Return whether a tensor lies in a storage, whatever an index calls that."""
        return damage.place(ref.storage) == damage.place(storage)

    # -- a file that was cut off -----------------------------------------------------------

    def salvage(self) -> None:
        """Keep what is whole; take the rest from the donor, or leave out what can be left out."""
        self.edits.rebuild = True
        self.replace(damage.lacking, say("its end was cut off"))
        self.leave_out()
        if not self.edits.changes:
            self.edits.changes.append(TensorChange("archive", "rebuild", say("a new directory")))

    def replace(self, broken: Any, reason: str) -> None:
        """Take every weight and state with a broken storage from the donor."""
        lost = []
        for tensor in self.checkpoint.tensors():
            if not broken(tensor.ref.storage):
                continue
            given = self.donor.tensor(tensor)
            if given is None:
                lost.append(tensor.name)
                continue
            self.edits.replace_values(tensor.ref, values.of(given))
            words = f"{reason}; from {self.donor.path}"
            self.edits.changes.append(TensorChange(tensor.name, "replace", words))
        if lost:
            raise OperationError(
                f"{len(lost)} of its weights lost ({reason}), e.g. {lost[0]}",
                where=self.checkpoint.path,
                next="take them from an earlier epoch with --from; or keep the rest alone: "
                f"ckptools convert --to safetensors {quote(self.checkpoint.path)}",
            )
        for optimizer in self.checkpoint.optimizers:
            for state in optimizer.states:
                if any(broken(ref.storage) for ref in state.slots.values()):
                    self.replace_state(optimizer, state, reason)

    def replace_state(self, optimizer: OptimizerState, state: ParameterState, reason: str) -> None:
        """Take one state from the donor, or leave it out."""
        name = state.name or f"{optimizer.key}.state.{state.id}"
        other = self.donor.states.get(state.name or "")
        whole = other is not None and all(
            self.donor.slot(state, slot, ref) is not None
            for slot, ref in state.slots.items()
            if slot not in slots.STEPS
        )
        if whole and other is not None:
            done = slots.copy(self.checkpoint, self.edits, (optimizer, state), other[1])
            self.edits.changes.append(TensorChange(name, "replace", reason, slots=done))
            return
        done = slots.remove(self.checkpoint, self.edits, optimizer, state)
        self.edits.changes.append(TensorChange(name, "drop state", reason, slots=done))

    def leave_out(self) -> None:
        """Leave out random states that were cut off; nothing else can be done without."""
        root = self.container.root
        for path, ref in self.checkpoint.other_tensors.items():
            if not damage.lacking(ref.storage):
                continue
            top = path.partition(".")[0]
            try:
                parent, key = places.parent(root, top)
                kind = helper_kind(top, places.child(parent, key))
            except KeyError:
                kind = None
            if kind != "rng":
                raise OperationError("is cut off and has no counterpart", where=path)
            self.edits.drop_item(parent, key)
            self.edits.changes.append(TensorChange(top, "drop", say("its end was cut off")))

    # -- values ----------------------------------------------------------------------------

    def values(self, tensors: list[NamedTensor], some: bool) -> None:
        """Replace NaN, Inf and negative second moments."""
        for tensor in tensors:
            number = 0 if self.done(tensor.ref) else damage.not_numbers(tensor.ref)
            if number:
                given = self.donor.tensor(tensor)
                self.fill(tensor.ref, given, 0.0, False)
                words = _mended(number, self.words(given))
                self.edits.changes.append(TensorChange(tensor.name, "repair", words))
        wanted = states_of(self.checkpoint, tensors).values() if some else self.all_states()
        for optimizer, state in wanted:
            done = dict(self.slots(state))
            if done:
                name = state.name or f"{optimizer.key}.state.{state.id}"
                self.edits.changes.append(TensorChange(name, "repair", slots=done))

    def done(self, ref: TensorRef) -> bool:
        """Return whether a tensor's storage was dealt with, or its values cannot be read."""
        return (
            damage.place(ref.storage) in self.mended
            or not ref.readable
            or damage.lacking(ref.storage)
        )

    def all_states(self) -> Iterator[_State]:
        """Yield every state of every optimizer."""
        for optimizer in self.checkpoint.optimizers:
            yield from ((optimizer, state) for state in optimizer.states)

    def slots(self, state: ParameterState) -> Iterator[tuple[str, str]]:
        """Mend one state's slots; yield what was done to each."""
        for name, ref in state.slots.items():
            second = name in slots.SECOND
            if self.done(ref) or not (number := damage.not_numbers(ref, negative=second)):
                continue
            given = self.donor.slot(state, name, ref)
            usual = slots.usual(ref) if second else 0.0
            self.fill(ref, given, usual, second)
            yield name, _mended(number, self.words(given, second))

    def words(self, given: TensorRef | None, second: bool = False) -> str:
        """Say where replaced values come from."""
        if given is not None:
            return say("from {path}", path=self.donor.path)
        return say("set to the mean of the others") if second else say("set to zero")

    def fill(self, ref: TensorRef, given: TensorRef | None, value: float, negative: bool) -> None:
        """Replace the bad values of a tensor, element by element."""
        other = values.of(given) if given is not None else values.constant(ref, value)

        def filled() -> Iterator[values.Array]:
            for mine, theirs in zip(values.chunks(ref), other(), strict=True):
                wrong = damage.bad(mine, negative)
                usable = np.where(damage.bad(theirs, negative), value, theirs)
                mine[wrong] = usable[wrong].astype(mine.dtype)
                yield mine

        self.edits.replace_values(ref, filled)


def _mended(number: int, words: str) -> str:
    return say("{values} {words}", values=count(number, "value"), words=words)
