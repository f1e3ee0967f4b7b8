"""The same sentences in other languages, with the same numbers.

Sentences are written in English as templates (:mod:`ckptools.types.wording`).  A language is one
file of this folder, ``LANGUAGE.toml``: tables of English template = template in that language.
What a catalogue lacks stays English.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from ckptools.types.wording import Noun, Series, Wording

#: what the sentences of the code are written in
ENGLISH = "en"
#: the languages there are, English first
LANGUAGES = (ENGLISH, *sorted(path.stem for path in Path(__file__).parent.glob("*.toml")))
#: media that are read by people; the others speak English unless they are asked for another
PAGES = frozenset({"table", "markdown", "html"})

#: how a language joins what English joins otherwise
_SEPARATORS = {"zh": {", ": "、", "; ": "；", " and ": " 和 "}}
_VARIABLES = ("CKPTOOLS_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def translate(text: str, lang: str) -> str:
    """Return a text in a language; plain strings, and what no catalogue knows, as they are."""
    if lang == ENGLISH:
        return text
    if isinstance(text, Series):
        separator = _SEPARATORS.get(lang, {}).get(text.separator, text.separator)
        return separator.join(translate(part, lang) for part in text.parts)
    if isinstance(text, Noun):
        return nouns(lang).get(text.template, text)
    if not isinstance(text, Wording):
        return text
    template = sentences(lang).get(text.template)
    if template is None:
        return rule_name(text, lang)
    return template.format(**{name: _value(one, lang) for name, one in text.values.items()})


def _value(value: object, lang: str) -> object:
    return translate(value, lang) if isinstance(value, str) else value


def word(text: str, lang: str) -> str:
    """Return a word of ours that stands alone, e.g. a severity or a heading of an explanation."""
    return sentences(lang).get(text, text)


def rule_name(name: str, lang: str) -> str:
    """Return a rule's name, with what it means in the language behind it."""
    meaning = _catalogue(lang).get("rules", {}).get(name)
    return f"{name} {meaning}" if meaning else name


@functools.cache
def sentences(lang: str) -> Mapping[str, str]:
    """Return the templates of a language by the English ones; a word is a template, too."""
    known: dict[str, str] = {}
    for name in ("sentences", "words", "summaries"):
        known |= _catalogue(lang).get(name, {})
    return known


def nouns(lang: str) -> Mapping[str, str]:
    """Return what stands behind a number, by the English singular."""
    return _catalogue(lang).get("nouns", {})


@functools.cache
def _catalogue(lang: str) -> dict[str, dict[str, str]]:
    if lang == ENGLISH:
        return {}
    import tomllib  # English needs none

    return tomllib.loads((Path(__file__).parent / f"{lang}.toml").read_text("utf-8"))


def preferred(environ: Mapping[str, str]) -> str:
    """Return the language that the environment asks for, English where there is none of ours.

    ``CKPTOOLS_LANG`` goes before the locale; of that the first variable that is set counts, as in
    POSIX.
    """
    wanted = next((environ[name] for name in _VARIABLES if environ.get(name)), ENGLISH)
    code = wanted.partition(".")[0].replace("-", "_").partition("_")[0].lower()
    return code if code in LANGUAGES else ENGLISH
