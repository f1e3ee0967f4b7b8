"""Plant one fault in a copy of a checkpoint, to see whether it is found.

A fault is a small function ``fault(patient, rng)`` that damages the loaded checkpoint in place
and returns the name of what it damaged.  Faults of the file itself get its bytes instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckptools.errors import InvalidParameter, WouldOverwrite
from ckptools.lanes.task import Lanes
from ckptools.lanes.train import load, one_thread

Rng = np.random.Generator


@dataclass(frozen=True)
class Patient:
    """A loaded checkpoint: everything that a fault may damage, by plain tensor name.

    Attributes
    ----------
    state: the checkpoint as loaded; what is saved afterwards.
    weights: its tensors without the prefix (the same tensors, so damage is in place).
    moments: optimizer state by parameter name.
    earlier: weights of an earlier checkpoint of the run, empty when none was given.
    """

    state: dict[str, Any]
    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    earlier: dict[str, Tensor]

    def part(self, module: str) -> dict[str, Tensor]:
        """Return the tensors of a module by the rest of their names ("" for a tensor itself)."""
        inside = {
            name.removeprefix(module).removeprefix("."): value
            for name, value in self.weights.items()
            if name == module or name.startswith(f"{module}.")
        }
        if not inside:
            raise InvalidParameter(f"the checkpoint has no {module}")
        return inside

    @property
    def blocks(self) -> int:
        """The number of decoder layers."""
        return len({name.split(".")[2] for name in self.weights if name.startswith(_LAYERS)})

    def random_layer(self, rng: Rng) -> str:
        """Return a decoder layer."""
        return f"{_LAYERS}{rng.integers(self.blocks)}"


_LAYERS = "decoder.layers."

Fault = Callable[[Patient, Rng], str]
FileFault = Callable[[bytearray, Rng], str]
#: Faults of weights and optimizer state, by name.
FAULTS: dict[str, Fault] = {}
#: Faults of the file's bytes, by name.
FILE_FAULTS: dict[str, FileFault] = {}


def _fault(name: str) -> Callable[[Fault], Fault]:
    def add(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return add


def _file_fault(name: str) -> Callable[[FileFault], FileFault]:
    def add(function: FileFault) -> FileFault:
        FILE_FAULTS[name] = function
        return function

    return add


@dataclass(frozen=True)
class Planted:
    """What was done: the fault's name, the module, tensor or record damaged, and the new file."""

    fault: str
    target: str
    path: Path


def plant(
    source: str | Path,
    target: str | Path,
    fault: str,
    *,
    seed: int = 0,
    earlier: str | Path | None = None,
) -> Planted:
    """Write a copy of a lanes checkpoint with one fault in it.

    Parameters
    ----------
    source, target: the healthy checkpoint, and the new file, which must not exist.
    fault: a name of :data:`FAULTS` or :data:`FILE_FAULTS`.
    seed: what the fault chooses at random.
    earlier: an earlier checkpoint of the run; needed by ``stale-layers`` only.

    Raises
    ------
    InvalidParameter: unknown fault, or one that needs ``earlier``.
    WouldOverwrite: ``target`` exists.
    """
    explain(fault)
    target = Path(target)
    rng = np.random.default_rng(seed)
    if target.exists():
        raise WouldOverwrite("this file exists", where=str(target), next="give another name")
    if fault in FILE_FAULTS:
        data = bytearray(Path(source).read_bytes())
        damaged = FILE_FAULTS[fault](data, rng)
        target.write_bytes(data)
        return Planted(fault, damaged, target)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        patient = read_patient(source, earlier)
        damaged = FAULTS[fault](patient, rng)
    torch.save(patient.state, target)
    return Planted(fault, damaged, target)


def explain(fault: str) -> str:
    """Return a sentence about what a fault is; InvalidParameter lists the known ones."""
    function = FAULTS.get(fault) or FILE_FAULTS.get(fault)
    if function is None:
        known = ", ".join(sorted([*FAULTS, *FILE_FAULTS]))
        raise InvalidParameter(f"no fault named {fault!r}", next=f"one of: {known}")
    return (function.__doc__ or "").partition("\n")[0]


def read_patient(source: str | Path, earlier: str | Path | None = None) -> Patient:
    """Load a lanes checkpoint for planting."""
    state = load(source)
    weights = _plain_names(state["model_state_dict"])
    past = {} if earlier is None else _plain_names(load(earlier)["model_state_dict"])
    return Patient(state, weights, _moments(state), past)


def _plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in weights.items()}


def _settings(state: Mapping[str, Any]) -> dict[str, Any]:
    saved = vars(state["args"])
    return {name: saved[name] for name in ("size", "blocks", "batch", "clip", "aux_weights")}


def _moments(state: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Return the optimizer state by name: the task builds its groups in a known order."""
    task = Lanes(_settings(state))
    with torch.random.fork_rng(devices=[]):
        model = task.build()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = [names[id(p)] for group in task.optimizer(model).param_groups for p in group["params"]]
    saved = state["optimizer_state_dict"]["state"]
    return {name: saved[index] for index, name in enumerate(order) if index in saved}


def _one_element(values: Tensor, rng: Rng) -> tuple[Tensor, int]:
    return values.view(-1), int(rng.integers(values.numel()))


def _one_matrix(patient: Patient, rng: Rng) -> str:
    """Return a matrix of the decoder's layers."""
    names = [
        name
        for name, value in patient.weights.items()
        if name.startswith(_LAYERS) and value.dim() == 2
    ]
    return names[rng.integers(len(names))]


@_fault("nan")
def nan(patient: Patient, rng: Rng) -> str:
    """One element of a decoder matrix is not a number."""
    name = _one_matrix(patient, rng)
    flat, place = _one_element(patient.weights[name], rng)
    flat[place] = torch.nan
    return name


@_fault("half-overflow")
def half_overflow(patient: Patient, rng: Rng) -> str:
    """A matrix went through half precision after its largest element had grown too large."""
    name = _one_matrix(patient, rng)
    values = patient.weights[name]
    values.view(-1)[values.abs().argmax()] *= 1e6
    values.copy_(values.half().float())
    return name


def _flip(patient: Patient, rng: Rng, bit: int) -> str:
    """Flip one bit of an element between 1e-3 and 1 (so that bit 30 is clear, as it mostly is)."""
    name = _one_matrix(patient, rng)
    flat = patient.weights[name].view(-1)
    usual = ((flat.abs() > 1e-3) & (flat.abs() < 1.0)).nonzero().flatten()
    place = usual[int(rng.integers(len(usual)))]
    flat.view(torch.int32)[place] ^= 1 << bit
    return name


@_fault("bit-30")
def bit_30(patient: Patient, rng: Rng) -> str:
    """The highest exponent bit of one element is flipped: it grows by 2**128."""
    return _flip(patient, rng, 30)


@_fault("bit-26")
def bit_26(patient: Patient, rng: Rng) -> str:
    """A middle exponent bit of one element is flipped: a factor of 2**8."""
    return _flip(patient, rng, 26)


@_fault("bit-3")
def bit_3(patient: Patient, rng: Rng) -> str:
    """A low mantissa bit of one element is flipped: harmless."""
    return _flip(patient, rng, 3)


@_fault("scaled-layer")
def scaled_layer(patient: Patient, rng: Rng) -> str:
    """All weights of one decoder layer are ten times too large."""
    module = patient.random_layer(rng)
    for values in patient.part(module).values():
        values *= 10.0
    return module


@_fault("scaled-head")
def scaled_head(patient: Patient, rng: Rng) -> str:
    """The first branch that moves the points is ten times too large."""
    module = "decoder.reg_branches.0"
    for values in patient.part(module).values():
        values *= 10.0
    return module


@_fault("noisy-projector")
def noisy_projector(patient: Patient, rng: Rng) -> str:
    """The projector's weights get noise of their own standard deviation."""
    _add_noise(patient.part("projector"), rng, strength=1.0)
    return "projector"


def _add_noise(tensors: Mapping[str, Tensor], rng: Rng, strength: float) -> None:
    for values in tensors.values():
        noise = torch.from_numpy(rng.standard_normal(values.shape).astype(np.float32))
        values += strength * values.std() * noise


@_fault("noisy-layer")
def noisy_layer(patient: Patient, rng: Rng) -> str:
    """The matrices of one decoder layer get noise of their own standard deviation."""
    module = patient.random_layer(rng)
    matrices = {n: v for n, v in patient.part(module).items() if v.dim() == 2}
    _add_noise(matrices, rng, strength=1.0)
    return module


@_fault("rank-one-projector")
def rank_one_projector(patient: Patient, rng: Rng) -> str:
    """The projector's last matrix is replaced by its best approximation of rank one.

    Its Frobenius norm is kept, so no statistic of the elements' size tells.
    """
    values = patient.weights["projector.2.weight"]
    left, singular, right = torch.linalg.svd(values)
    flat = torch.outer(left[:, 0], right[0])
    values.copy_(flat * singular.norm())
    return "projector.2.weight"


@_fault("dead-queries")
def dead_queries(patient: Patient, rng: Rng) -> str:
    """All scene queries of the Q-Former are zero: they gather the same thing."""
    patient.weights["qformer.query_tokens"].zero_()
    return "qformer.query_tokens"


@_fault("zeroed-module")
def zeroed_module(patient: Patient, rng: Rng) -> str:
    """The second attention of one decoder layer is zero: it sees no scene."""
    module = f"{patient.random_layer(rng)}.multihead_attn"
    for values in patient.part(module).values():
        values.zero_()
    return module


@_fault("sign-flip")
def sign_flip(patient: Patient, rng: Rng) -> str:
    """One matrix has the opposite sign."""
    name = f"{patient.random_layer(rng)}.linear2.weight"
    patient.weights[name].neg_()
    return name


@_fault("swapped-layers")
def swapped_layers(patient: Patient, rng: Rng) -> str:
    """Two decoder layers have changed places."""
    one, other = (f"{_LAYERS}{n}" for n in rng.choice(patient.blocks, 2, replace=False))
    there = patient.part(other)
    for rest, values in patient.part(one).items():
        kept = values.clone()
        values.copy_(there[rest])
        there[rest].copy_(kept)
    return f"{one}, {other}"


@_fault("stale-layers")
def stale_layers(patient: Patient, rng: Rng) -> str:
    """Two decoder layers come from the earlier checkpoint."""
    if not patient.earlier:
        raise InvalidParameter("stale-layers needs an earlier checkpoint", next="give earlier=")
    chosen = sorted(rng.choice(patient.blocks, 2, replace=False))
    for number in chosen:
        for name in patient.weights:
            if name.startswith(f"{_LAYERS}{number}."):
                patient.weights[name].copy_(patient.earlier[name])
    return ", ".join(f"{_LAYERS}{number}" for number in chosen)


@_fault("fresh-layer")
def fresh_layer(patient: Patient, rng: Rng) -> str:
    """One decoder layer is initialised anew, as if it had never been loaded."""
    return _initialise(patient, patient.random_layer(rng), rng)


@_fault("fresh-projector")
def fresh_projector(patient: Patient, rng: Rng) -> str:
    """The projector is initialised anew, as if it had never been loaded."""
    return _initialise(patient, "projector", rng)


def _initialise(patient: Patient, module: str, rng: Rng) -> str:
    torch.manual_seed(int(rng.integers(2**31)))
    weights = Lanes(_settings(patient.state)).build().state_dict()
    for rest, values in patient.part(module).items():
        values.copy_(weights[f"{module}.{rest}"])
    return module


@_fault("second-moments-zeroed")
def second_moments_zeroed(patient: Patient, rng: Rng) -> str:
    """Adam's second moments are zero while the first are not: the next steps are huge."""
    for slots in patient.moments.values():
        slots["exp_avg_sq"].zero_()
    return "optimizer"


@_fault("second-moments-shrunk")
def second_moments_shrunk(patient: Patient, rng: Rng) -> str:
    """Adam's second moments are a millionth of what they were."""
    for slots in patient.moments.values():
        slots["exp_avg_sq"] *= 1e-6
    return "optimizer"


@_fault("moments-shuffled")
def moments_shuffled(patient: Patient, rng: Rng) -> str:
    """Adam's first moments are shuffled inside every parameter, the second left alone."""
    for slots in patient.moments.values():
        flat = slots["exp_avg"].view(-1)
        flat.copy_(flat[torch.from_numpy(rng.permutation(flat.numel()))])
    return "optimizer"


@_fault("moments-exchanged")
def moments_exchanged(patient: Patient, rng: Rng) -> str:
    """Two parameters of one shape have each other's optimizer state."""
    one, other = (
        f"{_LAYERS}{n}.linear1.weight" for n in rng.choice(patient.blocks, 2, replace=False)
    )
    for slot, values in patient.moments[one].items():
        kept = values.clone()
        values.copy_(patient.moments[other][slot])
        patient.moments[other][slot].copy_(kept)
    return f"{one}, {other}"


@_fault("wrong-step")
def wrong_step(patient: Patient, rng: Rng) -> str:
    """One parameter's own step count is 3."""
    name = _one_matrix(patient, rng)
    patient.moments[name]["step"].fill_(3.0)
    return name


@_fault("rate-spell")
def rate_spell(patient: Patient, rng: Rng) -> str:
    """The run took sixteen steps at thirty times its learning rates; the file shows the old ones.

    Weights and moments are those after the spell, step counts too.
    """
    task = Lanes(_settings(patient.state))
    model = task.build()
    model.load_state_dict(patient.weights)
    optimizer = task.optimizer(model)
    optimizer.load_state_dict(patient.state["optimizer_state_dict"])
    for group in optimizer.param_groups:
        group["lr"] *= 30.0
    batches = task.batches(int(rng.integers(2**31)))
    with torch.enable_grad(), one_thread():
        for _ in range(16):
            _step(task, model, optimizer, next(batches))
    for name, values in model.state_dict().items():
        patient.weights[name].copy_(values)
    saved = patient.state["optimizer_state_dict"]
    saved["state"] = optimizer.state_dict()["state"]
    return "learning rates"


def _step(task: Lanes, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    weights = task.weights()
    optimizer.zero_grad()
    sum(weights[name] * term for name, term in task.loss(model, batch).items()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), task.clip_norm)
    optimizer.step()


@_file_fault("cut")
def cut(data: bytearray, rng: Rng) -> str:
    """The last third of the file is missing."""
    del data[2 * len(data) // 3 :]
    return "file"


@_file_fault("bit-on-disk")
def bit_on_disk(data: bytearray, rng: Rng) -> str:
    """One bit in the middle of the file is flipped, and no checksum was made anew."""
    place = len(data) // 2 + int(rng.integers(4096))
    data[place] ^= 1 << int(rng.integers(8))
    return f"byte {place}"
