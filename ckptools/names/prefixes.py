"""Wrapper prefixes: what DDP, torch.compile, FSDP, checkpointing and PEFT put into tensor names.

A wrapper renames everything below it, so its segment counts as a prefix only when every tensor of
the wrapped part carries it.  At the root that is a leading prefix (``module.conv.weight``), deeper
down it is a wrapped submodule (``layers.0._fsdp_wrapped_module.attn.weight``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

#: The wrappers, as the segments they add.
WRAPPERS: tuple[tuple[str, ...], ...] = (
    ("module",),  # DistributedDataParallel, DataParallel, AveragedModel, DeepSpeed
    ("_orig_mod",),  # torch.compile
    ("_fsdp_wrapped_module",),  # FullyShardedDataParallel
    ("_checkpoint_wrapped_module",),  # activation checkpointing
    ("_forward_module",),  # Lightning strategies
    ("base_model", "model"),  # PEFT
)

#: Tensors that a wrapper owns itself: they stand beside the wrapped part, not in it.
OWN = frozenset({"n_averaged", "steps", "_flat_param"})

#: Only so many leading segments of a name are looked at, and so many wrappers inside others.
DEPTH, ROUNDS = 64, 8

_FIRST = {wrapper[0]: wrapper for wrapper in WRAPPERS}

#: A wrapped part: the segments above it, and the wrapper.
_Site = tuple[tuple[str, ...], tuple[str, ...]]


def strip(keys: Iterable[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the wrapper prefixes found, outermost first, and each key's name without them.

    Nothing is removed where two keys would get the same name.
    """
    names = {key: key for key in keys}
    prefixes: dict[str, None] = {}
    for _ in range(ROUNDS):
        found, shorter = _strip_once(names.values())
        if not found or len(set(shorter.values())) < len(names):
            break
        prefixes.update(dict.fromkeys(found))
        names = {key: shorter[name] for key, name in names.items()}
    return tuple(prefixes), names


def without_wrappers(name: str) -> str:
    """Return ``name`` without any wrapper segment, whatever other names there are."""
    for _ in range(ROUNDS):
        segments = tuple(name.split(".", DEPTH))
        sites = {site for site, _ in _sites(segments)}
        if not sites:
            break
        name = ".".join(_without(segments, sites))
    return name


def _strip_once(keys: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Remove the wrappers seen now; what they hid (``base_model.module.model``) comes after."""
    split = {key: tuple(key.split(".", DEPTH)) for key in keys}
    sites = _wrapped_parts(split.values())
    outermost_first = sorted(sites, key=lambda site: len(site[0]))
    prefixes = [".".join(wrapper) + "." for _, wrapper in outermost_first]
    return prefixes, {key: ".".join(_without(segs, sites)) for key, segs in split.items()}


def _wrapped_parts(names: Iterable[tuple[str, ...]]) -> set[_Site]:
    """Return the places where every tensor carries the wrapper."""
    names = list(names)
    carriers: Counter[_Site] = Counter()
    for segments in names:
        carriers.update(site for site, _ in _sites(segments))
    if not carriers:
        return set()
    parents = {parent for parent, _ in carriers}
    totals = _members(names, parents)
    return {site for site, count in carriers.items() if count == totals[site[0]]}


def _members(
    names: list[tuple[str, ...]], parents: set[tuple[str, ...]]
) -> Counter[tuple[str, ...]]:
    """Return how many tensors lie below each of ``parents``, those of the wrappers left out."""
    totals: Counter[tuple[str, ...]] = Counter()
    lengths = sorted({len(parent) for parent in parents})
    for segments in names:
        for length in lengths:
            if length >= len(segments):
                break
            own = length + 1 == len(segments) and segments[length] in OWN
            if segments[:length] in parents and not own:
                totals[segments[:length]] += 1
    return totals


def _sites(segments: tuple[str, ...]) -> list[tuple[_Site, int]]:
    """Return the wrappers in one name as (site, position); a name's last segment is never one."""
    found: list[tuple[_Site, int]] = []
    if _FIRST.keys().isdisjoint(segments):
        return found
    position = 0
    while position < len(segments) - 1:
        wrapper = _FIRST.get(segments[position])
        length = len(wrapper) if wrapper else 1
        end = position + length
        if wrapper and segments[position:end] == wrapper and end < len(segments):
            found.append(((segments[:position], wrapper), position))
            position = end
        else:
            position += 1
    return found


def _without(segments: tuple[str, ...], sites: set[_Site]) -> list[str]:
    """Return the segments without the wrappers that stand at ``sites``."""
    kept: list[str] = []
    start = 0
    for site, position in _sites(segments):
        if site in sites:
            kept.extend(segments[start:position])
            start = position + len(site[1])
    kept.extend(segments[start:])
    return kept
