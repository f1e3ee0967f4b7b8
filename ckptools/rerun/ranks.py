"""Several processes that train one model together: who takes which batch, and one gradient.

Without torchrun there is one rank, and every function here gives back what it gets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import distributed, nn


def together() -> bool:
    """Return whether more than one process takes part."""
    running = distributed.is_available() and distributed.is_initialized()
    return bool(running and distributed.get_world_size() > 1)


def share(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield every n-th batch of n ranks, beginning with this rank's number."""
    if not together():
        yield from batches
        return
    yield from islice(batches, distributed.get_rank(), None, distributed.get_world_size())


def average(model: nn.Module) -> None:
    """Replace every gradient by its mean over the ranks; one that some rank lacks counts as zero.

    A parameter without a gradient on every rank keeps none: an optimizer passes it over.
    """
    if not together():
        return
    parameters = [one for one in model.parameters() if one.requires_grad]
    held = torch.tensor([float(one.grad is not None) for one in parameters])
    held = held.to(parameters[0].device) if parameters else held
    distributed.all_reduce(held)
    for parameter, holders in zip(parameters, held.tolist(), strict=True):
        if holders:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()


def first_says(answer: bool) -> bool:
    """Return the first rank's answer: what it sees decides for all."""
    if not together():
        return answer
    found = [answer]
    distributed.broadcast_object_list(found, 0)
    return found[0]


def all_say(answer: bool) -> bool:
    """Return whether every rank says yes; one that went on alone would wait for ever."""
    if not together():
        return answer
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, answer)
    return all(found)


def joined(digest: str) -> str:
    """Return one digest for those of all ranks, in their order."""
    if not together():
        return digest
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, digest)
    return hashlib.sha256("".join(found).encode()).hexdigest()
