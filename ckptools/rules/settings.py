"""The configuration file: ``ckptools.toml``, or ``[tool.ckptools]`` in ``pyproject.toml``.

::

    select = ["NUM", "FIL"]            # codes, names or families; all rules when left out
    ignore = ["wrapper-prefix"]
    baseline = ["NUM106 head.bias"]    # accepted findings: one rule and its target (or a glob)

    [limits]
    NUM108 = 8.0                       # by code or name

    [roles]                            # what names alone do not tell, by pattern
    "bev.mixer" = "attention"

    [layouts.agents]                   # where a file of your own keeps things, keys joined by dots
    weights = ["agent.net", "agent.target"]
    optimizers = ["agent.adam"]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptools.errors import SettingsError
from ckptools.layouts.frameworks.declared import OwnLayout, declared
from ckptools.names import roles
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
    roles: by name pattern, as :func:`ckptools.names.roles.declare` takes them.
    layouts: as :mod:`ckptools.layouts.frameworks.declared` takes them.
    path: the file they came from, or None for the defaults.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    baseline: tuple[str, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    layouts: tuple[OwnLayout, ...] = ()
    path: Path | None = None

    def declare(self) -> None:
        """Let everything that this process opens from now on be read by these roles and layouts."""
        roles.declare(self.roles)
        declared.declare(self.layouts)


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
    import tomllib  # most folders have no such file

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
