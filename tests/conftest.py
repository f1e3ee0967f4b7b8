"""What tests of several folders share: one real training run, made once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

LANES_EPOCHS = 3


@pytest.fixture(autouse=True, scope="session")
def english() -> Iterator[None]:
    """Let reports speak English, whatever the locale of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKPTOOLS_LANG", "en")
        yield


@pytest.fixture(scope="session")
def lanes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small lanes run of three epochs, names under ``module.``; do not write in it.

    It holds checkpoint_epoch_0.pth to checkpoint_epoch_3.pth, train.jsonl and train.log.
    """
    from ckptools.lanes.train import train

    folder = tmp_path_factory.mktemp("lanes")
    train(folder, epochs=LANES_EPOCHS, size="small", prefix="module.")
    return folder
