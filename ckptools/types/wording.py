"""Sentences that know their template and their values, so that they can be said in any language.

Code writes English: ``say("{count} of {total} values are NaN", count=3, total=12)`` *is* the
English sentence.  What renders it looks the template up in a catalogue and fills in the same
values.
"""

from __future__ import annotations

from typing import Any


class Wording(str):
    """An English sentence with the template and the values it was made of.

    Attributes
    ----------
    template: the sentence with named fields, as :meth:`str.format` takes them.
    values: what the fields are filled with; a value may be a Wording itself.
    """

    __slots__ = ("template", "values")

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, values: dict[str, Any]) -> Wording:
        """Fill in the values."""
        sentence = super().__new__(cls, template.format(**values))
        sentence.template = template
        sentence.values = values
        return sentence

    def __getnewargs__(self) -> tuple[str, dict[str, Any]]:  # type: ignore[override]
        """Let copies and pickles keep what the sentence is made of."""
        return self.template, self.values


def say(template: str, /, **values: Any) -> Wording:
    """Return the sentence of a template and its values.

    Raises
    ------
    KeyError, ValueError: the template asks for a value that is not given, or in a wrong format.
    """
    return Wording(template, values)
