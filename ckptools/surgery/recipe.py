"""Recipes: several operations in order, written in TOML, or read from a receipt.

::

    [[step]]
    operation = "transplant"
    module = "decoder.layers.0"
    from = "checkpoint_epoch_11.pth"

    [[step]]
    operation = "assign"
    lr = "x0.1"
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptools.errors import InvalidParameter
from ckptools.surgery.operation import operations

#: words of the command line that Python cannot take as names
_ALIASES = {"from": "from_checkpoint"}
#: how users say the names of parameters
WORDS = {name: word for word, name in _ALIASES.items()}


@dataclass(frozen=True, slots=True)
class Step:
    """One operation with its parameters."""

    operation: str
    parameters: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the step as it stands in a receipt."""
        return {"operation": self.operation, **self.parameters}


def read(path: Path) -> list[Step]:
    """Return the steps of a recipe (TOML) or of a receipt (JSON).

    Raises InvalidParameter, naming everything that is wrong.
    """
    try:
        text = path.read_text()
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except UnicodeDecodeError:
        raise InvalidParameter(
            "is no text, and so no recipe",
            where=str(path),
            next="ckptools recipe RECIPE CHECKPOINT, in this order",
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"cannot be read: {error}", where=str(path)) from error
    listed = _steps(document)
    wrong = [_fault(index, step) for index, step in enumerate(listed, 1)]
    faults = [fault for fault in wrong if fault] or ([] if listed else ["it has no [[step]]"])
    if faults:
        known = ", ".join(operations.names())
        raise InvalidParameter("; ".join(faults), where=str(path), next=f"operations: {known}")
    return [_step(step) for step in listed]


def _steps(document: Any) -> list[Any]:
    """Return the raw steps of either kind of document."""
    if not isinstance(document, dict):
        return []
    if "schema" not in document:
        steps = document.get("step")
        return steps if isinstance(steps, list) else []
    parameters = document.get("parameters")
    if not isinstance(parameters, dict):
        return []
    if isinstance(parameters.get("steps"), list):
        return list(parameters["steps"])
    return [{"operation": document.get("operation"), **parameters}]


def _fault(index: int, step: Any) -> str | None:
    if not isinstance(step, dict) or not isinstance(step.get("operation"), str):
        return f"step {index} names no operation"
    if step["operation"] not in operations.names():
        return f"step {index}: no operation {step['operation']!r}"
    return None


def _step(step: dict[str, Any]) -> Step:
    words = {key.replace("-", "_"): value for key, value in step.items() if key != "operation"}
    named = {_ALIASES.get(key, key): value for key, value in words.items()}
    listed = {key: tuple(v) if isinstance(v, list) else v for key, v in named.items()}
    return Step(step["operation"], listed)
