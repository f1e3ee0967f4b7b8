"""Every sentence has its wording in every language, with the same numbers."""

from __future__ import annotations

import random
import re
import string
import tomllib
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ckptools.report import wording
from ckptools.report.wording import LANGUAGES, preferred, rule_name, sentences, translate
from ckptools.rules.explanation import HEADINGS
from ckptools.rules.registry import rules
from ckptools.types.finding import CONFIDENCES, SEVERITIES
from ckptools.types.wording import Wording, count, join, say
from tests.builders import templates

OTHERS = [lang for lang in LANGUAGES if lang != "en"]
#: words of the media that stand alone
WORDS = {*SEVERITIES, *CONFIDENCES, *HEADINGS, "yes", "no", "limit", "next"}
_NUMBER = re.compile(r"[+-]?\d[\d.,]*")


def catalogue(lang: str) -> dict[str, dict[str, str]]:
    """Return the file of a language."""
    path = Path(wording.__file__).parent / f"{lang}.toml"
    return tomllib.loads(path.read_text("utf-8"))


def summaries() -> set[str]:
    """Return the first sentence of every rule."""
    return {" ".join(one.explanation.summary.split()) for one in rules if _ours(one.check)}


def _ours(check: object) -> bool:
    return getattr(check, "__module__", "").startswith("ckptools.")


def fields(template: str) -> set[tuple[str, str, str | None]]:
    """Return what a template asks for, with how it is printed."""
    parts = string.Formatter().parse(template)
    return {(name, spec or "", how) for _, name, spec, how in parts if name is not None}


def test_chinese_is_there() -> None:
    assert LANGUAGES == ("en", "zh")


def test_every_sentence_is_a_literal_template() -> None:
    assert [one for one in templates.said() if one.startswith("? ")] == []


def test_nothing_is_shown_that_was_not_said() -> None:
    assert templates.bare() == []


@pytest.mark.parametrize("lang", OTHERS)
class TestCatalogue:
    def test_it_has_every_sentence_and_nothing_else(self, lang: str) -> None:
        tables = catalogue(lang)
        known = {*tables["sentences"], *tables["words"]}
        wanted = {*templates.said(), *WORDS}
        assert {
            one: templates.said()[one] for one in wanted - known if one in templates.said()
        } == {}
        assert wanted - known == set()
        assert known - wanted == set()

    def test_it_has_every_noun(self, lang: str) -> None:
        assert set(catalogue(lang)["nouns"]) == {*templates.counted(), *SEVERITIES}

    def test_it_has_every_rule(self, lang: str) -> None:
        names = {one.name for one in rules if _ours(one.check)}
        assert set(catalogue(lang)["rules"]) == names
        assert set(catalogue(lang)["summaries"]) == summaries()

    def test_no_template_stands_in_two_tables(self, lang: str) -> None:
        tables = catalogue(lang)
        names = ("sentences", "words", "summaries")
        assert sum(len(tables[one]) for one in names) == len(sentences(lang))

    def test_templates_ask_for_the_same_values(self, lang: str) -> None:
        other = {one: text for one, text in sentences(lang).items() if fields(one) != fields(text)}
        assert other == {}

    @settings(max_examples=10, phases=[Phase.generate])
    @given(st.integers(0))
    def test_the_same_numbers_stand_in_both(self, lang: str, seed: int) -> None:
        rng = random.Random(seed)
        differing = []
        for template in templates.said():
            sentence = Wording(template, {n: _value(s, rng) for n, s, _ in fields(template)})
            if _numbers(translate(sentence, lang)) != _numbers(sentence):
                differing.append((sentence, translate(sentence, lang)))
        assert differing == []


def _value(spec: str, rng: random.Random) -> object:
    """Return a value that a field can print: a number where its format is one's."""
    if spec and spec[-1] in "fge%":
        return rng.uniform(-1, 1) * 10 ** rng.randint(-4, 6)
    return rng.randint(-10_000, 10**9) if spec else f"<{rng.randint(0, 10**6)}>"


def _numbers(text: str) -> set[str]:
    """Return the numbers that stand in a text, as they are printed."""
    return {one.rstrip(".,") for one in _NUMBER.findall(text)}


class TestTranslate:
    def test_english_stays_the_very_sentence(self) -> None:
        sentence = say("no checkpoint was given")
        assert translate(sentence, "en") is sentence

    def test_values_and_parts_are_translated_too(self) -> None:
        sentence = say(
            "{tensors} in {own}; the other blocks have them in {others}",
            tensors=count(2, "tensor"),
            own=join(["float16", "int8"]),
            others="float32",
        )
        assert translate(sentence, "zh") == "2 个张量为 float16、int8；其他块中为 float32"

    def test_sentences_put_together_are_translated_apart(self) -> None:
        sentence = "x" + say(" ({unknown})", unknown=say("the weights' dtype is unknown")) + "!"
        assert sentence == "x (the weights' dtype is unknown)!"
        assert translate(sentence, "zh") == "x（权重的 dtype 未知）!"

    def test_what_no_catalogue_knows_stays_english(self) -> None:
        assert translate(Wording("{n} unheard-of things", {"n": 3}), "zh") == "3 unheard-of things"
        assert translate("decoder.layers.0", "zh") == "decoder.layers.0"

    def test_a_rule_keeps_its_name(self) -> None:
        assert rule_name("nonfinite-weight", "en") == "nonfinite-weight"
        assert rule_name("nonfinite-weight", "zh") == "nonfinite-weight 非有限的权重"
        assert rule_name("somebody-elses", "zh") == "somebody-elses"


@pytest.mark.parametrize(
    ("environ", "lang"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LANG": "C.UTF-8", "LC_ALL": ""}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_ALL": "en_GB", "CKPTOOLS_LANG": "zh"}, "zh"),
        ({"LC_ALL": "zh_CN", "CKPTOOLS_LANG": "en"}, "en"),
        ({"LANG": "zh-Hans"}, "zh"),
    ],
)
def test_the_language_follows_the_environment(environ: dict[str, str], lang: str) -> None:
    assert preferred(environ) == lang
