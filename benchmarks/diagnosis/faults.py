"""The catalogue of faults, each in graded strength.

A fault damages a patient in place and returns the names of what it damaged, which a finding has to
point at; no names mean that the whole file or optimizer is ill.  :class:`Inapplicable` says that
this patient lacks what the fault needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.diagnosis.patients import Patient

Rng = np.random.Generator
Places = tuple[str, ...]
Plant = Callable[[Patient, Rng, float], Places]
FilePlant = Callable[[bytearray, Rng, float], Places]


class Inapplicable(Exception):
    """This patient cannot have this fault."""


@dataclass(frozen=True)
class Fault:
    """A fault: what part it damages ("weights", "optimizer", "run" or "file") and how strongly.

    Strengths rise; what the number means stands in the planter's docstring.
    """

    name: str
    part: str
    strengths: tuple[float, ...]
    plant: Plant | FilePlant


FAULTS: dict[str, Fault] = {}
#: The second moments of the optimizers that have some.
_SQUARES = ("exp_avg_sq", "square_avg", "sum")
#: First moments.
_FIRST = ("exp_avg", "momentum_buffer")


def _fault(name: str, part: str, *strengths: float) -> Callable[[Plant], Plant]:
    def add(function: Plant) -> Plant:
        FAULTS[name] = Fault(name, part, strengths or (1.0,), function)
        return function

    return add


def _file_fault(name: str, *strengths: float) -> Callable[[FilePlant], FilePlant]:
    def add(function: FilePlant) -> FilePlant:
        FAULTS[name] = Fault(name, "file", strengths or (1.0,), function)
        return function

    return add


def _pick(rng: Rng, names: list[str]) -> str:
    if not names:
        raise Inapplicable
    return names[int(rng.integers(len(names)))]


def _matrix(patient: Patient, rng: Rng) -> tuple[str, Tensor]:
    name = _pick(rng, patient.matrices())
    return name, patient.weights[name]


def _normal(shape: torch.Size, rng: Rng) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(shape)).astype(np.float32))


def _block(patient: Patient, rng: Rng) -> tuple[str, list[str]]:
    blocks = patient.blocks()
    name = _pick(rng, list(blocks))
    return name, blocks[name]


# --- weights -----------------------------------------------------------------------------------


@_fault("noise", "weights", 0.01, 0.1, 0.3, 1.0)
def noise(patient: Patient, rng: Rng, strength: float) -> Places:
    """Noise of so many standard deviations on a matrix."""
    name, values = _matrix(patient, rng)
    values.add_((strength * values.float().std() * _normal(values.shape, rng)).to(values.dtype))
    return (name,)


@_fault("scaled tensor", "weights", 1.1, 2.0, 10.0)
def scaled(patient: Patient, rng: Rng, strength: float) -> Places:
    """A matrix times so much."""
    name, values = _matrix(patient, rng)
    values.mul_(strength)
    return (name,)


@_fault("scaled block", "weights", 1.2, 3.0, 10.0)
def scaled_block(patient: Patient, rng: Rng, strength: float) -> Places:
    """All of a block times so much."""
    block, names = _block(patient, rng)
    for name in names:
        patient.weights[name].mul_(strength)
    return (block,)


@_fault("swapped blocks", "weights")
def swapped(patient: Patient, rng: Rng, strength: float) -> Places:
    """Two blocks of a stack have changed places."""
    one, names = _block(patient, rng)
    place = patient.stacks[names[0]]
    others = {
        block: members
        for block, members in patient.blocks().items()
        if block != one
        and patient.stacks[members[0]].stack == place.stack
        and len(members) == len(names)
    }
    other = _pick(rng, list(others))
    for here, there in zip(names, others[other], strict=True):
        _exchange(patient.weights[here], patient.weights[there])
    return (one, other)


def _exchange(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise Inapplicable
    kept = one.clone()
    one.copy_(other)
    other.copy_(kept)


@_fault("swapped tensors", "weights")
def swapped_tensors(patient: Patient, rng: Rng, strength: float) -> Places:
    """Two matrices of one shape have changed places."""
    name, values = _matrix(patient, rng)
    twins = [n for n in patient.matrices() if n != name and _alike(patient, n, values)]
    other = _pick(rng, twins)
    _exchange(values, patient.weights[other])
    return (name, other)


def _alike(patient: Patient, name: str, values: Tensor) -> bool:
    return patient.weights[name].shape == values.shape


@_fault("sign flip", "weights")
def sign_flip(patient: Patient, rng: Rng, strength: float) -> Places:
    """A matrix has the opposite sign."""
    name, values = _matrix(patient, rng)
    values.neg_()
    return (name,)


@_fault("dead rows", "weights", 0.1, 0.5, 1.0)
def dead_rows(patient: Patient, rng: Rng, strength: float) -> Places:
    """This share of a matrix's rows is zero, at least one."""
    name, values = _matrix(patient, rng)
    rows = rng.permutation(len(values))[: max(1, round(strength * len(values)))]
    values[torch.from_numpy(rows)] = 0.0
    return (name,)


@_fault("constant", "weights")
def constant(patient: Patient, rng: Rng, strength: float) -> Places:
    """A matrix holds its mean everywhere."""
    name, values = _matrix(patient, rng)
    values.fill_(float(values.float().mean()))
    return (name,)


@_fault("shuffled rows", "weights")
def shuffled_rows(patient: Patient, rng: Rng, strength: float) -> Places:
    """The rows of a matrix stand in another order."""
    name, values = _matrix(patient, rng)
    values.copy_(values[torch.from_numpy(rng.permutation(len(values)))].clone())
    return (name,)


@_fault("NaN", "weights", 1.0, 1e9)
def nan(patient: Patient, rng: Rng, strength: float) -> Places:
    """So many elements of a matrix are NaN."""
    name, values = _matrix(patient, rng)
    count = int(min(strength, values.numel()))
    values.view(-1)[torch.from_numpy(rng.permutation(values.numel())[:count])] = torch.nan
    return (name,)


@_fault("half-precision overflow", "weights")
def overflow(patient: Patient, rng: Rng, strength: float) -> Places:
    """A matrix that had grown beyond what half precision holds went through it."""
    name, values = _matrix(patient, rng)
    values.copy_((values.float() * 1e5 / values.float().std()).half().to(values.dtype))
    return (name,)


@_fault("bit flip", "weights", 22, 26, 28, 30)
def bit_flip(patient: Patient, rng: Rng, strength: float) -> Places:
    """This bit (of 32; the top 16 for bf16) of one ordinary element is flipped."""
    name, values = _matrix(patient, rng)
    flat = values.view(-1)
    usual = ((flat.abs() > 1e-3) & (flat.abs() < 1.0)).nonzero().flatten()
    if not len(usual) or values.dtype == torch.float16:
        raise Inapplicable
    place = usual[int(rng.integers(len(usual)))]
    if values.dtype == torch.bfloat16:
        flat.view(torch.int16)[place] ^= 1 << (int(strength) - 16)
    else:
        flat.view(torch.int32)[place] ^= 1 << int(strength)
    return (name,)


@_fault("stale tensor", "weights", 1, 3)
def stale_tensor(patient: Patient, rng: Rng, strength: float) -> Places:
    """A matrix is that of so many epochs before."""
    name, values = _matrix(patient, rng)
    values.copy_(_past(patient, strength).weights[name])
    return (name,)


@_fault("stale block", "weights", 1, 3)
def stale_block(patient: Patient, rng: Rng, strength: float) -> Places:
    """A block is that of so many epochs before."""
    block, names = _block(patient, rng)
    for name in names:
        patient.weights[name].copy_(_past(patient, strength).weights[name])
    return (block,)


def _past(patient: Patient, epochs: float) -> Patient:
    if len(patient.earlier) < epochs:
        raise Inapplicable
    return patient.earlier[int(epochs) - 1]


@_fault("truncated rank", "weights", 0.5, 0.1, 0.0)
def truncated_rank(patient: Patient, rng: Rng, strength: float) -> Places:
    """Of a matrix's singular values this share is kept, at least one; its norm is kept, too."""
    names = [n for n in patient.matrices() if patient.weights[n].ndim == 2]
    name = _pick(rng, names)
    values = patient.weights[name].float()
    left, sizes, right = torch.linalg.svd(values, full_matrices=False)
    sizes[max(1, round(strength * len(sizes))) :] = 0.0
    low = left @ torch.diag(sizes) @ right
    patient.weights[name].copy_((low * values.norm() / low.norm()).to(patient.weights[name].dtype))
    return (name,)


@_fault("re-initialised tensor", "weights")
def reinitialised(patient: Patient, rng: Rng, strength: float) -> Places:
    """A matrix is drawn anew as torch's Linear draws it."""
    name, values = _matrix(patient, rng)
    _draw(values, rng)
    return (name,)


@_fault("re-initialised block", "weights")
def reinitialised_block(patient: Patient, rng: Rng, strength: float) -> Places:
    """A block is drawn anew: matrices uniform, gains 1, offsets 0."""
    block, names = _block(patient, rng)
    for name in names:
        values = patient.weights[name]
        if values.ndim > 1:
            _draw(values, rng)
        else:
            values.fill_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)
    return (block,)


def _draw(values: Tensor, rng: Rng) -> None:
    bound = (values.numel() / len(values)) ** -0.5
    drawn = rng.uniform(-bound, bound, tuple(values.shape)).astype(np.float32)
    values.copy_(torch.from_numpy(drawn).to(values.dtype))


@_fault("rounded to bf16", "weights")
def rounded(patient: Patient, rng: Rng, strength: float) -> Places:
    """A matrix went through bf16."""
    name, values = _matrix(patient, rng)
    if values.dtype != torch.float32:
        raise Inapplicable
    values.copy_(values.bfloat16().float())
    return (name,)


# --- optimizer ---------------------------------------------------------------------------------


def _with(patient: Patient, slots: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (parameter, slot) of the matrices' states that have one of the slots."""
    return [
        (name, slot)
        for name in patient.matrices()
        for slot in slots
        if isinstance(patient.slots.get(name, {}).get(slot), Tensor)
    ]


def _slot(patient: Patient, rng: Rng, slots: tuple[str, ...]) -> tuple[str, Tensor]:
    found = _with(patient, slots)
    if not found:
        raise Inapplicable
    name, slot = found[int(rng.integers(len(found)))]
    return name, patient.slots[name][slot]


@_fault("v zeroed", "optimizer")
def v_zeroed(patient: Patient, rng: Rng, strength: float) -> Places:
    """A second moment is zero."""
    name, values = _slot(patient, rng, _SQUARES)
    values.zero_()
    return patient.place(name)


@_fault("v scaled", "optimizer", 0.9, 0.1, 1e-6)
def v_scaled(patient: Patient, rng: Rng, strength: float) -> Places:
    """A second moment times so much."""
    name, values = _slot(patient, rng, _SQUARES)
    values.mul_(strength)
    return patient.place(name)


@_fault("all v scaled", "optimizer", 0.1, 1e-6)
def all_v_scaled(patient: Patient, rng: Rng, strength: float) -> Places:
    """All second moments times so much."""
    found = _with(patient, _SQUARES)
    if not found:
        raise Inapplicable
    for name, slot in found:
        patient.slots[name][slot].mul_(strength)
    return ()


@_fault("moments shuffled", "optimizer")
def shuffled(patient: Patient, rng: Rng, strength: float) -> Places:
    """The elements of a first moment stand in another order."""
    name, values = _slot(patient, rng, _FIRST)
    flat = values.view(-1)
    flat.copy_(flat[torch.from_numpy(rng.permutation(flat.numel()))].clone())
    return patient.place(name)


@_fault("moment negated", "optimizer")
def negated(patient: Patient, rng: Rng, strength: float) -> Places:
    """A first moment has the opposite sign."""
    name, values = _slot(patient, rng, _FIRST)
    values.neg_()
    return patient.place(name)


@_fault("states exchanged", "optimizer")
def exchanged(patient: Patient, rng: Rng, strength: float) -> Places:
    """Two parameters of one shape have each other's state."""
    names = [name for name in patient.matrices() if patient.slots.get(name)]
    name = _pick(rng, names)
    values = patient.weights[name]
    other = _pick(rng, [n for n in names if n != name and _alike(patient, n, values)])
    for slot in patient.slots[name]:
        if not isinstance(patient.slots[name][slot], Tensor):
            raise Inapplicable
        _exchange(patient.slots[name][slot], patient.slots[other][slot])
    return (*patient.place(name), *patient.place(other))


@_fault("step changed", "optimizer", 0.9, 0.0, 10.0)
def step_changed(patient: Patient, rng: Rng, strength: float) -> Places:
    """The step count of a parameter times so much (at least 1)."""
    names = [n for n in patient.matrices() if "step" in patient.slots.get(n, {})]
    name = _pick(rng, names)
    step = patient.slots[name]["step"]
    changed = max(1.0, float(np.floor(float(step) * strength)))
    if changed == float(step):
        raise Inapplicable
    patient.slots[name]["step"] = torch.full_like(step, changed)
    return patient.place(name)


@_fault("state of another epoch", "optimizer", 1, 3)
def stale_state(patient: Patient, rng: Rng, strength: float) -> Places:
    """The moments of a parameter are those of so many epochs before, its step is not."""
    past = _past(patient, strength)
    names = [name for name, _ in _with(patient, _FIRST) if past.slots.get(name)]
    name = _pick(rng, names)
    for slot, values in patient.slots[name].items():
        if slot != "step" and isinstance(values, Tensor):
            values.copy_(past.slots[name][slot])
    return patient.place(name)


@_fault("all states of another epoch", "optimizer", 1, 3)
def stale_states(patient: Patient, rng: Rng, strength: float) -> Places:
    """All states, step counts and all, are those of so many epochs before."""
    past = _past(patient, strength)
    for key, one in patient.optimizers.items():
        if not past.optimizers[key]["state"]:
            raise Inapplicable
        one["state"] = past.optimizers[key]["state"]
    return ()


@_fault("state dropped", "optimizer")
def dropped(patient: Patient, rng: Rng, strength: float) -> Places:
    """A parameter has no state."""
    name = _pick(rng, [n for n in patient.matrices() if patient.slots.get(n)])
    key, number = patient.ids[name]
    del patient.optimizers[key]["state"][number]
    return patient.place(name)


@_fault("slot dropped", "optimizer")
def slot_dropped(patient: Patient, rng: Rng, strength: float) -> Places:
    """A parameter's state has no first moment."""
    found = _with(patient, _FIRST)
    if not found:
        raise Inapplicable
    name, slot = found[int(rng.integers(len(found)))]
    del patient.slots[name][slot]
    return patient.place(name)


@_fault("all states dropped", "optimizer")
def all_dropped(patient: Patient, rng: Rng, strength: float) -> Places:
    """The optimizer has no state at all."""
    states = [one["state"] for one in patient.optimizers.values()]
    if not any(states):
        raise Inapplicable
    for one in states:
        one.clear()
    return ()


@_fault("moments rounded to bf16", "optimizer")
def moments_rounded(patient: Patient, rng: Rng, strength: float) -> Places:
    """All moments went through bf16."""
    touched = False
    for slots in patient.slots.values():
        for slot, values in slots.items():
            if slot != "step" and isinstance(values, Tensor) and values.dtype == torch.float32:
                values.copy_(values.bfloat16().float())
                touched = True
    if not touched:
        raise Inapplicable
    return ()


# --- run ---------------------------------------------------------------------------------------


@_fault("learning rate changed", "run", 1.5, 10.0)
def rate_changed(patient: Patient, rng: Rng, strength: float) -> Places:
    """The learning rate of every group times so much; the scheduler knows nothing of it."""
    if "scheduler" not in patient.state:
        raise Inapplicable
    for one in patient.optimizers.values():
        for group in one["param_groups"]:
            if group["lr"] == 0.0:
                raise Inapplicable
            group["lr"] *= strength
    return ()


@_fault("scheduler behind", "run", 1, 1e9)
def scheduler_behind(patient: Patient, rng: Rng, strength: float) -> Places:
    """The scheduler is that of so many epochs before (of epoch 0 at most)."""
    past = patient.earlier[: int(min(strength, 99))]
    if not past or "scheduler" not in patient.state:
        raise Inapplicable
    patient.state["scheduler"] = past[-1].state["scheduler"]
    return ()


@_fault("decay changed", "run")
def decay_changed(patient: Patient, rng: Rng, strength: float) -> Places:
    """The weight decay of every group is ten times as large, or .1 where there was none."""
    for one in patient.optimizers.values():
        for group in one["param_groups"]:
            group["weight_decay"] = 10 * group["weight_decay"] or 0.1
    return ()


@_fault("betas changed", "run")
def betas_changed(patient: Patient, rng: Rng, strength: float) -> Places:
    """beta2 is .9."""
    groups = [g for one in patient.optimizers.values() for g in one["param_groups"]]
    if not all("betas" in group for group in groups):
        raise Inapplicable
    for group in groups:
        group["betas"] = (group["betas"][0], 0.9)
    return ()


@_fault("epoch counter wrong", "run")
def epoch_wrong(patient: Patient, rng: Rng, strength: float) -> Places:
    """The file says that it is the epoch before, its states know better."""
    if not patient.earlier:
        raise Inapplicable
    for key in ("epoch", "global_step", "iteration"):
        if key in patient.state:
            patient.state[key] = patient.earlier[0].state[key]
    return ()


# --- file --------------------------------------------------------------------------------------


@_file_fault("cut", 0.05, 0.3)
def cut(data: bytearray, rng: Rng, strength: float) -> Places:
    """The last so much of the file is missing."""
    del data[round((1 - strength) * len(data)) :]
    return ()


@_file_fault("bit on disk", 1, 8)
def bit_on_disk(data: bytearray, rng: Rng, strength: float) -> Places:
    """So many bits in the middle of the file are flipped."""
    for _ in range(int(strength)):
        data[len(data) // 4 + int(rng.integers(len(data) // 2))] ^= 1 << int(rng.integers(8))
    return ()
