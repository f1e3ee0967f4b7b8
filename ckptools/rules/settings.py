"""The configuration file: ``ckptools.toml``, or ``[tool.ckptools]`` in ``pyproject.toml``.

::

    select = ["NUM", "FIL"]            # codes, names or families; all rules when left out
    ignore = ["wrapper-prefix"]
    baseline = ["NUM106 head.bias"]    # accepted findings: one rule and its target (or a glob)

    [limits]
    NUM108 = 8.0                       # by code or name
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptools.errors import SettingsError
from ckptools.rules.selection import check_baseline, nearest, require

#: The files looked for in a folder, the first one that has settings wins.
FILES = ("ckptools.toml", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user decided once for all runs.

    Attributes
    ----------
    select, ignore, baseline: as :func:`ckptools.rules.judge` takes them.
    limits: by rule code, as :class:`~ckptools.types.evidence.Evidence` takes them.
    path: the file they came from, or None for the defaults.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    baseline: tuple[str, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)
    path: Path | None = None


def find(folder: Path) -> Settings:
    """Return the settings in force in ``folder``: its own or those of the nearest parent."""
    for place in (folder.resolve(), *folder.resolve().parents):
        for name in FILES:
            settings = _read_if_any(place / name)
            if settings is not None:
                return settings
    return Settings()


def read(path: Path) -> Settings:
    """Return the settings in ``path``; SettingsError when it has none or they are wrong."""
    if not path.is_file():
        raise SettingsError("there is no such configuration file", where=str(path))
    settings = _read_if_any(path)
    if settings is None:
        raise SettingsError("the file has no [tool.ckptools] table", where=str(path))
    return settings


def _read_if_any(path: Path) -> Settings | None:
    """Return the settings in ``path``, or None when there is no file or no table of ours."""
    if not path.is_file():
        return None
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"not valid TOML: {error}", where=str(path)) from error
    except OSError as error:
        raise SettingsError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("ckptools")
    return None if table is None else _settings(table, path)


def _settings(table: Any, path: Path) -> Settings:
    """Return the settings that ``table`` spells out; every fault of it is a SettingsError."""
    try:
        _check_keys(table)
        select, ignore, baseline = (_words(table, key) for key in ("select", "ignore", "baseline"))
        for selector in (*select, *ignore):
            require(selector)
        check_baseline(baseline)
        return Settings(select, ignore, baseline, _limits(table.get("limits", {})), path)
    except SettingsError as error:
        raise SettingsError(error.message, where=str(path), next=error.next) from error


def _check_keys(table: Any) -> None:
    known = ("select", "ignore", "baseline", "limits")
    if not isinstance(table, dict):
        raise SettingsError("ckptools is a table of settings")
    for key in table:
        if key not in known:
            raise SettingsError(
                f"unknown setting {key!r}", next=nearest(key, known) or f"known: {', '.join(known)}"
            )


def _words(table: dict[str, Any], key: str) -> tuple[str, ...]:
    """Return the list of strings under ``key``, empty when it is not there."""
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise SettingsError(f"{key} is a list of strings")
    return tuple(value)


def _limits(table: Any) -> dict[str, float]:
    """Return the limits by rule code."""
    if not isinstance(table, dict):
        raise SettingsError("limits is a table: a number by rule code or name")
    return dict(_limit(key, value) for key, value in table.items())


def _limit(key: str, value: Any) -> tuple[str, float]:
    named = [rule for rule in require(key) if key.lower() in (rule.code.lower(), rule.name)]
    if len(named) != 1:
        raise SettingsError(f"a limit belongs to one rule, not to {key!r}")
    if named[0].limit is None:
        raise SettingsError(f"{named[0].code} {named[0].name} has no limit to set")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingsError(f"the limit of {key} is a number, not {value!r}")
    return named[0].code, float(value)
