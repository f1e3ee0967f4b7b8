"""The zoo's tables, from its results."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tabulate import tabulate

from benchmarks.diagnosis.counting import LIKELY, alarms, fresh, outcome, points_at, upper, wilson
from benchmarks.diagnosis.families import HALVES
from ckptools.rules.changes import ONE_RUN
from ckptools.rules.registry import rules

Result = dict[str, Any]
MODES = ("single", "previous", "series")
#: A weight fault is harmful when it raises the validation loss by more than a tenth.
HARM = 0.0953


def tables(results: Sequence[Result]) -> str:
    """Return all tables."""
    clean = [one for one in results if one["kind"] == "clean"]
    planted = [one for one in results if one["kind"] == "fault" and one["applies"]]
    before = {(c["family"], c["seed"], c["epoch"]): c for c in clean}
    parts = [
        ("Healthy checkpoints", families(clean)),
        ("False alarms by rule (healthy cases in which it ran)", false_alarms(clean)),
        ("Detection by part and strength of harm", detection(planted, before)),
        (
            "Detection by fault (found / right target first / named, of all)",
            faults(planted, before),
        ),
        ("Which rule names what", by_rule(planted, before)),
        ("Confidence words against truth", words(clean, planted, before)),
    ]
    return "\n\n".join(f"## {title}\n\n{table}" for title, table in parts)


def families(clean: Sequence[Result]) -> str:
    """Return healthy cases, alarms, and files that trained badly, by family."""
    rows = []
    for half in HALVES:
        for name in dict.fromkeys(c["family"] for c in clean if c["half"] == half):
            cases = [c for c in clean if c["family"] == name]
            kept = [c for c in cases if c["healthy"]]
            pairs = [c for c in kept if c["previous"]]
            rows.append(
                [
                    half,
                    name,
                    len({c["seed"] for c in cases}),
                    len(kept),
                    len(cases) - len(kept),
                    len(pairs),
                    sum(c["previous"]["relation"] in ONE_RUN for c in pairs),
                    sum(bool(alarms(c["single"]["findings"])) for c in kept if c["single"]),
                    sum(bool(alarms(c["previous"]["findings"])) for c in pairs),
                    sum(_loud(c["previous"] or c["single"]) for c in kept),
                    "{}/{}".format(
                        len({c["seed"] for c in kept if c["onset"] is not None}),
                        len({c["seed"] for c in kept if c["followed"]}),
                    ),
                ]
            )
    heads = ["half", "family", "runs", "files", "left out", "pairs", "one run", "alarm: file",
             "alarm: pair", "above hint", "series with onset"]  # fmt: skip
    return tabulate(rows, heads)


def _loud(judged: Result) -> int:
    return any(one[2] != "hint" for one in alarms(judged["findings"]))


def _ran(one: Result, code: str) -> bool | None:
    """Return whether the rule judged this healthy case and was silent; None if it did not run.

    Rules about change are asked of pairs of one run; all others of the file alone.
    """
    change = "changes" in rules.get(code).needs or "earlier" in rules.get(code).needs
    judged = one["previous"] if change else one["single"] or one["previous"]
    if judged is None or code not in judged["ran"]:
        return None
    if change and judged["relation"] not in ONE_RUN:
        return None
    return code not in {row[0] for row in alarms(judged["findings"])}


def rates(clean: Iterable[Result], half: str | None = None) -> dict[str, tuple[int, int, int]]:
    """Return (alarms, healthy cases, runs with an alarm) by rule."""
    chosen = [c for c in clean if c["healthy"] and half in (None, c["half"])]
    found = {}
    for code in sorted(rules.names()):
        if rules.get(code).family in ("LOG", "EXP"):
            continue
        silent = [(c, _ran(c, code)) for c in chosen]
        fired = [c for c, quiet in silent if quiet is False]
        cases = sum(quiet is not None for _, quiet in silent)
        found[code] = len(fired), cases, len({(c["family"], c["seed"]) for c in fired})
    return found


def false_alarms(clean: Sequence[Result]) -> str:
    """Return the rates of all halves; bounds, and who may say likely, by the one that measures."""
    tuned, seen, measured = (rates(clean, half) for half in HALVES)
    rows = []
    for code, (events, cases, hit) in measured.items():
        bound = upper(events, cases)
        low, high = wilson(events, cases)
        rows.append(
            [
                code,
                rules.get(code).name,
                rules.get(code).confidence,
                "{}/{}".format(*tuned[code][:2]),
                "{}/{}".format(*seen[code][:2]),
                f"{events}/{cases}",
                hit,
                f"{low:.2%} – {high:.2%}",
                f"{bound:.2%}",
                "yes" if bound < LIKELY else "",
            ]
        )
    heads = ["code", "name", "says", "tune", "seen", "measure", "runs", "Wilson 95 %", "upper 95 %",
             "may say likely"]  # fmt: skip
    return tabulate(rows, heads)


def _worth(one: Result, mode: str, before: dict[tuple[str, int, int], Result]) -> Result | None:
    """Return what a judgement of a fault was worth; None where it was not followed as a series."""
    healthy = before[one["family"], one["seed"], one["epoch"]]
    if mode == "series":
        found = one["series"]
        if found is None:
            return None
        lost = one["file"] in (*found["unreadable"], *found["foreign"])
        rows = [["OPEN", "error", "proof", "file"]] if lost else found["steps"].get(one["file"], [])
        return outcome(rows, healthy["previous"]["findings"], _places(one))
    return outcome(one[mode]["findings"], healthy[mode]["findings"], _places(one))


def _worths(members: Iterable[Result], mode: str, before: Any) -> list[Result]:
    known = (_worth(one, mode, before) for one in members)
    return [one for one in known if one is not None]


def _places(one: Result) -> list[str]:
    return [] if one["part"] in ("file", "run") else list(one["places"])


def _kind(one: Result) -> str:
    if one["part"] != "weights":
        return str(one["part"])
    if one["harm"] is None:
        return "weights, harm not known"
    return "weights, loss +10 % or more" if one["harm"] > HARM else "weights, harmless"


def detection(planted: Sequence[Result], before: Any) -> str:
    """Return shares found by part, mode and half."""
    return _shares(planted, before, _kind, ["found", "first", "sure"])


def faults(planted: Sequence[Result], before: Any) -> str:
    """Return shares found by fault and strength, over all halves."""
    rows = []
    groups: dict[tuple[str, str, float], list[Result]] = defaultdict(list)
    for one in planted:
        groups[one["part"], one["fault"], one["strength"]].append(one)
    for (part, name, strength), members in groups.items():
        cells = []
        for mode in MODES:
            worths = _worths(members, mode, before)
            sums = [sum(w[key] for w in worths) for key in ("found", "first", "named")]
            of = f" of {len(worths)}" if len(worths) < len(members) else ""
            cells.append("/".join(map(str, sums)) + of)
        harm = [one["harm"] for one in members if one["harm"] is not None]
        hurt = f"{sum(h > HARM for h in harm)}/{len(harm)}" if harm else ""
        rows.append([part, name, f"{strength:g}", len(members), hurt, *cells])
    heads = ["part", "fault", "strength", "of", "harmful", *MODES]
    return tabulate(rows, heads, disable_numparse=True)


def _shares(
    planted: Sequence[Result], before: Any, key: Callable[[Result], str], keys: Sequence[str]
) -> str:
    rows = []
    for group in sorted({key(one) for one in planted}):
        for half in HALVES:
            members = [one for one in planted if key(one) == group and one["half"] == half]
            cells = []
            for mode in MODES:
                worths = _worths(members, mode, before)
                cells += [_share(sum(w[k] for w in worths), len(worths)) for k in keys]
            rows.append([group, half, len(members), *cells])
    heads = [f"{mode}: {key}" for mode in MODES for key in keys]
    return tabulate(rows, ["kind", "half", "of", *heads], disable_numparse=True)


def _share(events: int, cases: int) -> str:
    low, high = wilson(events, cases)
    return f"{events / cases:.0%} ({low:.0%}–{high:.0%})" if cases else ""


def by_rule(planted: Sequence[Result], before: Any) -> str:
    """Return how often each rule named the damage, and how often it named something else."""
    right: dict[str, Counter[str]] = {mode: Counter() for mode in MODES[:2]}
    wrong: dict[str, Counter[str]] = {mode: Counter() for mode in MODES[:2]}
    for one in planted:
        healthy = before[one["family"], one["seed"], one["epoch"]]
        for mode in MODES[:2]:
            new = alarms(fresh(one[mode]["findings"], healthy[mode]["findings"]))
            hit = {row[0] for row in new if points_at(row[3], _places(one))}
            right[mode].update(hit)
            wrong[mode].update({row[0] for row in new} - hit)
    codes = sorted({code for table in (*right.values(), *wrong.values()) for code in table})
    rows = [
        [code, *(table[mode][code] for mode in MODES[:2] for table in (right, wrong))]
        for code in codes
    ]
    heads = [f"{mode}: {word}" for mode in MODES[:2] for word in ("names it", "names another")]
    return tabulate(rows, ["code", *heads])


def words(clean: Sequence[Result], planted: Sequence[Result], before: Any) -> str:
    """Return for each confidence word how many alarms were true, by half."""
    true: Counter[tuple[str, str, str]] = Counter()
    for one in planted:
        healthy = before[one["family"], one["seed"], one["epoch"]]
        for row in alarms(fresh(one["previous"]["findings"], healthy["previous"]["findings"])):
            right = points_at(row[3], _places(one))
            true[one["half"], row[2], "the damage" if right else "another place"] += 1
    for one in clean:
        if one["healthy"]:
            for row in alarms((one["previous"] or one["single"])["findings"]):
                true[one["half"], row[2], "on a healthy file"] += 1
    kinds = ("the damage", "another place", "on a healthy file")
    rows = [
        [half, word, *(true[half, word, kind] for kind in kinds), _told_true(true, half, word)]
        for half in HALVES
        for word in ("proof", "likely", "hint")
    ]
    return tabulate(rows, ["half", "word", *kinds, "names the damage"], disable_numparse=True)


def _told_true(true: Counter[tuple[str, str, str]], half: str, word: str) -> str:
    right, wrong = true[half, word, "the damage"], true[half, word, "another place"]
    return _share(right, right + wrong)
