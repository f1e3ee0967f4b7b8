"""What a configuration file may say: its table becomes settings, each fault a SettingsError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ckptools.errors import SettingsError
from ckptools.layouts.frameworks.declared import OwnLayout
from ckptools.names import roles
from ckptools.rules.selection import check_baseline, nearest, require
from ckptools.rules.settings import Settings


def read(table: Any, path: Path) -> Settings:
    """Return the settings that ``table`` spells out; every fault of it is a SettingsError."""
    try:
        _check_keys(table)
        select, ignore, baseline = (_words(table, key) for key in ("select", "ignore", "baseline"))
        for selector in (*select, *ignore):
            require(selector)
        check_baseline(baseline)
        return Settings(
            select,
            ignore,
            baseline,
            _limits(table.get("limits", {})),
            _roles(table.get("roles", {})),
            _layouts(table.get("layouts", {})),
            path,
        )
    except SettingsError as error:
        raise SettingsError(error.message, where=str(path), next=error.next) from error


def _check_keys(table: Any) -> None:
    if not isinstance(table, dict):
        raise SettingsError("ckptools is a table of settings")
    _only(table, ("select", "ignore", "baseline", "limits", "roles", "layouts"))


def _only(table: dict[str, Any], known: tuple[str, ...]) -> None:
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


def _roles(table: Any) -> dict[str, str]:
    """Return the roles by pattern."""
    if not isinstance(table, dict):
        raise SettingsError("roles is a table: a role by name pattern")
    for pattern, meant in table.items():
        if meant not in roles.ROLES:
            known = f"known: {', '.join(roles.ROLES)}"
            advice = nearest(meant, roles.ROLES) if isinstance(meant, str) else None
            raise SettingsError(f"{meant!r} is no role, for {pattern!r}", next=advice or known)
    return dict(table)


def _layouts(tables: Any) -> tuple[OwnLayout, ...]:
    """Return the declared layouts, in their order."""
    if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
        raise SettingsError("layouts holds a table for each layout of your own")
    return tuple(_layout(name, table) for name, table in tables.items())


def _layout(name: str, table: dict[str, Any]) -> OwnLayout:
    _only(table, ("weights", "optimizers"))
    weights, optimizers = (
        tuple(tuple(path.split(".")) for path in _words(table, key))
        for key in ("weights", "optimizers")
    )
    if not weights:
        raise SettingsError(f"the layout {name!r} does not say where its weights are")
    return OwnLayout(name, weights, optimizers)
