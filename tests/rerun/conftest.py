"""Finished trials are kept in a folder of the test's own, not in the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_trials(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of finished trials of this test."""
    folder = tmp_path_factory.mktemp("trials")
    monkeypatch.setattr("ckptools.rerun.trials.default_store", lambda: folder)
    return folder
