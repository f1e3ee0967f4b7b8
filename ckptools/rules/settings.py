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
from typing import TYPE_CHECKING, Any

from ckptools.errors import SettingsError

if TYPE_CHECKING:  # every command asks for settings, and most folders have none
    from ckptools.layouts.frameworks.declared import OwnLayout

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
        from ckptools.layouts.frameworks.declared import declared
        from ckptools.names import roles

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
    if table is None:
        return None
    from ckptools.rules import settings_table  # knows every rule, role and layout

    return settings_table.read(table, path)
