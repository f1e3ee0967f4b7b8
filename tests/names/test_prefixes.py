from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.names.prefixes import WRAPPERS, strip, without_wrappers
from tests.builders.key_names import ALL


@pytest.mark.parametrize(
    ("keys", "prefixes", "names"),
    [
        (["module.a.w", "module.b"], ("module.",), ["a.w", "b"]),
        (["_orig_mod.module.a", "_orig_mod.module.b"], ("_orig_mod.", "module."), ["a", "b"]),
        (["module._orig_mod.a"], ("module.", "_orig_mod."), ["a"]),
        (["module.a", "b"], (), ["module.a", "b"]),
        (["base_model.model.model.x"], ("base_model.model.",), ["model.x"]),
        (["n_averaged", "module.a"], ("module.",), ["n_averaged", "a"]),
        (["steps", "module.a"], ("module.",), ["steps", "a"]),  # mmengine's average
        (["features.module.0.w", "fc.w"], ("module.",), ["features.0.w", "fc.w"]),
        (["base_model.module.model.a"], ("module.", "base_model.model."), ["a"]),
        (["module", "module.a"], (), ["module", "module.a"]),
        (["module"], (), ["module"]),
        (["module."], ("module.",), [""]),
        ([], (), []),
    ],
)  # fmt: skip
def test_known_cases(keys: list[str], prefixes: tuple[str, ...], names: list[str]) -> None:
    assert strip(keys) == (prefixes, dict(zip(keys, names, strict=True)))


def test_fsdp_and_checkpointing_wrap_in_the_middle() -> None:
    keys = [
        f"_fsdp_wrapped_module.layers.{index}._fsdp_wrapped_module._checkpoint_wrapped_module.{rest}"
        for index in range(3)
        for rest in ("attn.weight", "mlp.weight")
    ] + ["_fsdp_wrapped_module.norm.weight"]
    prefixes, names = strip(keys)
    assert prefixes == ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
    assert sorted(names.values())[0] == "layers.0.attn.weight"
    assert not any("wrapped" in name for name in names.values())


def test_a_flat_parameter_stands_beside_what_it_flattens() -> None:
    keys = ["layers.0._flat_param", "layers.0._fsdp_wrapped_module.attn.weight"]
    assert list(strip(keys)[1].values()) == ["layers.0._flat_param", "layers.0.attn.weight"]


def test_a_part_without_the_wrapper_keeps_everything_of_that_part() -> None:
    keys = ["encoder.module.w", "encoder.extra", "decoder.module.w"]
    assert list(strip(keys)[1].values()) == ["encoder.module.w", "encoder.extra", "decoder.w"]


def test_nothing_is_removed_where_names_would_collide() -> None:
    keys = ["module.n_averaged", "n_averaged", "module.a"]
    prefixes, names = strip(keys)
    assert prefixes == ()
    assert list(names) == list(names.values())


@pytest.mark.parametrize("model", sorted(set(ALL) - {"lora", "lora-adapter"}))
def test_models_without_wrapper_keep_their_names(model: str) -> None:
    keys = list(ALL[model]())
    assert strip(keys) == ((), {key: key for key in keys})


def test_a_very_deep_name_costs_little() -> None:
    deep = "module." * 200_000 + "weight"
    assert strip([deep])[1][deep].endswith("weight")


SEGMENT = st.sampled_from(["a", "b", "0", "module", "_orig_mod", "base_model", "model", ""])
KEYS = st.lists(st.lists(SEGMENT, min_size=1, max_size=6).map(".".join), unique=True, max_size=8)


@given(KEYS)
def test_stripping_is_one_to_one_and_only_removes_wrappers(keys: list[str]) -> None:
    prefixes, names = strip(keys)
    assert len(set(names.values())) == len(keys)
    assert set(prefixes) <= {".".join(wrapper) + "." for wrapper in WRAPPERS}
    for key, name in names.items():
        assert without_wrappers(key) == without_wrappers(name)
        assert len(name) <= len(key)


@given(KEYS.filter(bool))
def test_one_wrapper_around_everything_is_found(keys: list[str]) -> None:
    free = [key for key in keys if key == without_wrappers(key)]
    wrapped = [f"_orig_mod.{key}" for key in free]
    assert strip(wrapped)[1] == dict(zip(wrapped, free, strict=True))
