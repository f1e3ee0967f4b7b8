"""A few small models, trained once for the whole session."""

from __future__ import annotations

import pytest
import torch

from tests.builders.small_models import Snapshot, train

#: The last step of each; snapshots are ten steps and one step before it, too.
TRAINED = {"gpt": 80, "llama": 80, "cnn": 220, "lora": 80, "lstm": 80, "mlp": 80}


@pytest.fixture(scope="session")
def histories() -> dict[str, list[Snapshot]]:
    """Return three snapshots of every model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {kind: train(kind, (last - 10, last - 1, last)) for kind, last in TRAINED.items()}
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="session")
def runs(histories: dict[str, list[Snapshot]]) -> dict[str, Snapshot]:
    """Return the last snapshot of every model."""
    return {kind: found[-1] for kind, found in histories.items()}
