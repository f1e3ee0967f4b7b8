"""Errors: one line, with place and way out; the family tree in the docstring is the real one."""

from __future__ import annotations

import re

import pytest

from ckptools import errors


def classes() -> list[type[errors.CkptoolsError]]:
    found = [errors.CkptoolsError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return [cls for cls in found if cls.__module__ == errors.__name__]


def test_the_tree_in_the_docstring_is_complete() -> None:
    drawn = set(re.findall(r"^[ │├└─]*([A-Z]\w+)", errors.__doc__ or "", flags=re.MULTILINE))
    assert {cls.__name__ for cls in classes()} <= drawn


@pytest.mark.parametrize("cls", classes())
def test_a_message_says_where_what_and_what_next(cls: type[errors.CkptoolsError]) -> None:
    error = cls("is cut short", where="a.pth", next="copy it again")
    assert str(error) == "a.pth: is cut short — copy it again"
    assert str(cls("is cut short")) == "is cut short"
