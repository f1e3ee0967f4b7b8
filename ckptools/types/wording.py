"""Sentences that know their template and their values, so that they can be said in any language.

Code writes English: ``say("{count} of {total} values are NaN", count=3, total=12)`` *is* the
English sentence.  What renders it looks the template up in a catalogue and fills in the same
values.
"""

from __future__ import annotations

from collections.abc import Iterable
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

    def __add__(self, other: str) -> Series:
        """Put another text behind it; both stay what they are."""
        return Series((self, other), "")

    def __radd__(self, other: str) -> Series:
        """Put it behind a plain text."""
        return Series((other, self), "")


def say(template: str, /, **values: Any) -> Wording:
    """Return the sentence of a template and its values.

    Raises
    ------
    KeyError, ValueError: the template asks for a value that is not given, or in a wrong format.
    """
    return Wording(template, values)


def verbatim(text: str) -> Wording:
    """Return a text of ours, written elsewhere than in a call of :func:`say`, as a sentence.

    Its template is the text itself.
    """
    return Wording(text.replace("{", "{{").replace("}", "}}"), {})


class Noun(Wording):
    """A noun in the form that its number asks for; the template is its singular."""

    __slots__ = ()

    def __new__(cls, word: str, form: str) -> Noun:
        """Keep the singular beside the form that is said."""
        noun = str.__new__(cls, form)
        noun.template = word
        noun.values = {}
        return noun

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        """Let copies and pickles keep the singular."""
        return self.template, str(self)


class Series(str):
    """Several texts joined; each may be a Wording, and languages join differently.

    Attributes
    ----------
    parts: the texts.
    separator: what stands between them in English.
    """

    __slots__ = ("parts", "separator")

    parts: tuple[str, ...]
    separator: str

    def __new__(cls, parts: Iterable[str], separator: str = ", ") -> Series:
        """Join the parts."""
        known = tuple(parts)
        series = super().__new__(cls, separator.join(known))
        series.parts = known
        series.separator = separator
        return series

    def __getnewargs__(self) -> tuple[tuple[str, ...], str]:  # type: ignore[override]
        """Let copies and pickles keep the parts."""
        return self.parts, self.separator

    def __add__(self, other: str) -> Series:
        """Put another text behind it; both stay what they are."""
        return Series((self, other), "")

    def __radd__(self, other: str) -> Series:
        """Put it behind a plain text."""
        return Series((other, self), "")


def join(parts: Iterable[str], separator: str = ", ") -> Series:
    """Return the texts joined, able to be said in another language."""
    return Series(parts, separator)


def count(number: int, word: str, plural: str | None = None) -> Wording:
    """Return "1 tensor" or "2 tensors"."""
    form = word if number == 1 else plural or word + "s"
    return say("{number:,} {noun}", number=number, noun=Noun(word, form))


def pack(value: Any) -> Any:
    """Return ``value`` with every sentence in it as plain JSON, for :func:`unpack`.

    Sentences whose values are no JSON themselves become what they say in English.
    """
    if isinstance(value, Noun):
        return {_KIND: "noun", "word": value.template, "form": str(value)}
    if isinstance(value, Wording):
        values = pack(value.values)
        plain = isinstance(values, dict) and all(map(_is_plain, values.values()))
        return {_KIND: "say", "template": value.template, "values": values} if plain else str(value)
    if isinstance(value, Series):
        return {_KIND: "join", "parts": pack(value.parts), "separator": value.separator}
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    return [pack(item) for item in value] if isinstance(value, (list, tuple)) else value


def unpack(value: Any) -> Any:
    """Return what :func:`pack` was given; lists stand for tuples."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind == "noun":
        return Noun(value["word"], value["form"])
    if kind == "say":
        return Wording(value["template"], unpack(value["values"]))
    if kind == "join":
        return Series(unpack(value["parts"]), value["separator"])
    return {key: unpack(item) for key, item in value.items()}


#: marks what a packed sentence is
_KIND = "ckptools.wording"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, list, dict))
