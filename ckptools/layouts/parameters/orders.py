"""Orders in which a program may have listed its parameters.

``optimizer.param_groups`` lists parameters as the program gave them, nearly always as
``model.parameters()`` does: the order of registration, which is also that of a state dict.  A file
may have lost it (adapter files are sorted as text: 0, 1, 10, 2), so other orders are tried, each
with a price that says how much evidence it needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from ckptools.names.stacks import Place

_NUMBER = re.compile(r"(\d+)")
_SEGMENT = re.compile(r"(.*?)(\d*)")
#: Segments whose number is an index, not a part of the name (``layer10``, not ``conv2``).
_INDEXED = re.compile(r"\d+|.*(?:layer|block|cell)s?_?\d+")
#: Only so many leading segments of a name are looked at.
_DEPTH = 64

#: Kinds of modules in the order in which programs usually register them.
_RANKS: tuple[tuple[int, str], ...] = (
    (0, r"weight|in_proj_weight"),
    (2, r"bias|in_proj_bias"),
    (0, r"(?:tok|token|word|cls|mask)\w*|embeddings?|embed\w*|wte|patch\w*|stem|shared|conv_?1"),
    (1, r"pos\w*|wpe|bn_?1"),
    (2, r"backbone|encoder|features|layers?\d*|h|blocks?|stages?|resblocks|body"),
    (3, r"(?:input_layernorm|ln_?1|norm_?1|\w*norm_?1|attention_norm|layer_norm_?1|bn1)"),
    (4, r"self_?attn|attn|attention|self_?attention|mixer|neck"),
    (10, r"(?:post_attention_layernorm|ln_?2|norm_?2|ffn_norm|layer_norm_?2|bn2)"),
    (11, r"cross_?attn|multihead_attn|decoder"),
    (12, r"norm_?3"),
    (13, r"mlp|ffn|feed_?forward|intermediate|moe|router|block_sparse_moe|gate"),
    (16, r"experts?"),
    (18, r"final_layer_?norm|ln_f|norm|ln_post|layernorm"),
    (19, r"head\w*|\w*_head|classifier|fc|lm_head|output|cls\w*"),
    (0, r"q\w*|query|to_q|wq|in_proj\w*|qkv|c_attn"),
    (1, r"k|k_\w+|key|to_k|wk"),
    (2, r"v|v_\w+|value|to_v|wv"),
    (3, r"o|o_\w+|out\w*|to_out|wo"),
    (14, r"gate_proj|w1|fc1|linear1|c_fc|dense_h_to_4h|wi\w*|lora_A|in_layer"),
    (15, r"up_proj|w2|fc2|linear2|lora_B|gate_up_proj|c_proj|proj"),
    (16, r"down_proj|w3|dense_4h_to_h"),
)
#: Recurrent weights are registered layer by layer: both weights, then both biases.
_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?")

_COMPILED = [(rank, re.compile(pattern, re.IGNORECASE)) for rank, pattern in _RANKS]

#: Sorting key of one segment: whether it has children, its kind's rank, its index.
_Key: TypeAlias = tuple[bool, float, float]


@dataclass(frozen=True, slots=True)
class Order:
    """One order of the candidates.

    Attributes
    ----------
    name: what it is called in messages.
    sequence: candidate positions.
    price: how unusual it is; 0 for the order of the file.
    """

    name: str
    sequence: tuple[int, ...]
    price: float


def orders(names: Sequence[str], places: Sequence[Place]) -> list[Order]:
    """Return the orders worth trying, each sequence once, cheapest first.

    A file that is sorted as text tells nothing about the order of registration: its own order
    costs as much as the others then.
    """
    count = range(len(names))
    lost = sorted_as_text(names)
    ways: list[tuple[str, float, list[int]]] = [
        ("file", 1.0 if lost else 0.0, list(count)),
        ("index", 1.0, by_index(names)),
        ("convention", 1.0 if lost else 1.5, by_convention(names)),
        ("convention, norms last", 1.0 if lost else 1.5, by_convention(names, norms_last=True)),
        ("natural", 2.0, sorted(count, key=lambda i: natural(names[i]))),
        ("text", 2.0, sorted(count, key=lambda i: names[i])),
    ]
    ways += [(f"{name}, reversed", price + 3, way[::-1]) for name, price, way in ways]
    ways += [
        (f"{name}, blocks reversed", price + 3, _blocks_reversed(way, places))
        for name, price, way in ways[:2]
    ]
    found: dict[tuple[int, ...], Order] = {}
    for name, price, way in sorted(ways, key=lambda way: way[1]):
        found.setdefault(tuple(way), Order(name, tuple(way), price))
    return list(found.values())


def sorted_as_text(names: Sequence[str]) -> bool:
    """Return whether the file lists its tensors as text sorts them, which no program registers."""
    return len(names) > 2 and list(names) == sorted(names) != [
        names[i] for i in by_convention(names)
    ]


def natural(name: str) -> list[tuple[int, int | str]]:
    """Return a sorting key that orders numbers by size."""
    return [(0, int(p)) if p.isdigit() else (1, p) for p in _NUMBER.split(name) if p]


def by_index(names: Sequence[str]) -> list[int]:
    """Return the order in which numbered siblings follow their numbers and others the file."""

    def key(segment: str, rank: int, leaf: bool) -> _Key:
        _, number = _cut(segment)
        return (False, rank, number)

    return _hierarchical(names, key)


def by_convention(names: Sequence[str], *, norms_last: bool = False) -> list[int]:
    """Return the order by the usual kinds of modules, numbers by size.

    A module's own parameters come before those of its children, as torch lists them.
    """

    def key(segment: str, rank: int, leaf: bool) -> _Key:
        stem, number = _cut(segment)
        return (not leaf, _rank(segment, norms_last) if stem else 0.0, number)

    return _hierarchical(names, key)


@lru_cache(maxsize=65536)
def _rank(segment: str, norms_last: bool) -> float:
    recurrent = _RECURRENT.fullmatch(segment)
    if recurrent:
        kind, gate, layer, backwards = recurrent.groups()
        return 8 * int(layer) + 4 * bool(backwards) + 2 * (kind == "bias") + (gate != "ih") / 2
    if norms_last and re.search(r"norm|ln_?\d", segment, re.IGNORECASE):
        return 17.0
    return next((float(rank) for rank, known in _COMPILED if known.fullmatch(segment)), 9.0)


def _hierarchical(names: Sequence[str], key: Callable[[str, int, bool], _Key]) -> list[int]:
    """Sort names segment by segment; ``key`` gets a segment, its stem's rank, whether it is last.

    The rank counts stems (segments without their index) by first appearance below one parent.
    """
    stems: dict[tuple[str, ...], dict[str, int]] = {}
    keys = []
    for name in names:
        segments = tuple(name.split(".", _DEPTH))
        parts: list[tuple[bool, float, float, int]] = []
        for depth, segment in enumerate(segments):
            known = stems.setdefault(segments[:depth], {})
            rank = known.setdefault(_cut(segment)[0], len(known))
            parts.append((*key(segment, rank, depth == len(segments) - 1), rank))
        keys.append(parts)
    return sorted(range(len(names)), key=lambda i: keys[i])


@lru_cache(maxsize=65536)
def _cut(segment: str) -> tuple[str, float]:
    """Return a segment without its index, and the index (-1 for none)."""
    found = _SEGMENT.fullmatch(segment)
    if found is None or not found[2] or not _INDEXED.fullmatch(segment):
        return segment, -1.0
    return found[1], float(found[2])


def _blocks_reversed(way: Sequence[int], places: Sequence[Place]) -> list[int]:
    """Return the order with the blocks of every stack from the last to the first."""
    runs: list[list[int]] = []
    for index in way:
        if runs and places[runs[-1][0]].module == places[index].module:
            runs[-1].append(index)
        else:
            runs.append([index])
    return [index for run in _reversed_stacks(runs, places) for index in run]


def _reversed_stacks(runs: list[list[int]], places: Sequence[Place]) -> list[list[int]]:
    done: list[list[int]] = []
    stack: list[list[int]] = []
    name: str | None = None
    for run in runs:
        here = places[run[0]].stack
        if here is None or here != name:
            done += stack[::-1]
            stack, name = [], here
        if here is None:
            done.append(run)
        else:
            stack.append(run)
    return done + stack[::-1]
