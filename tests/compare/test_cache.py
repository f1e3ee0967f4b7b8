"""Names of kept results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptools.compare import cache


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    cache._sources.cache_clear()
    yield
    cache._sources.cache_clear()


def test_a_changed_module_gives_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    module = tmp_path / "rules" / "one.py"
    module.parent.mkdir()
    names = set()
    for text in ("severity = 1", "severity = 12", "severity = 12"):
        module.write_text(text)
        cache._sources.cache_clear()
        names.add(cache.key("timeline", 1))
    assert len(names) in (2, 3)  # the same text of a later time may count as another
    assert cache.key("timeline", 2) not in names
    assert cache.key("timeline", 1) in names
