"""A few small models, trained once for the whole session."""

from __future__ import annotations

import pytest
import torch

from tests.builders.small_models import Snapshot, train

#: Snapshots ten steps apart and one step apart.
KEEP = (70, 79, 80)
TRAINED = ("gpt", "llama", "cnn", "lora", "lstm", "mlp")


@pytest.fixture(scope="session")
def histories() -> dict[str, list[Snapshot]]:
    """Return three snapshots of every model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {kind: train(kind, KEEP) for kind in TRAINED}
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="session")
def runs(histories: dict[str, list[Snapshot]]) -> dict[str, Snapshot]:
    """Return the last snapshot of every model."""
    return {kind: found[-1] for kind, found in histories.items()}
