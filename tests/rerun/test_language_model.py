"""A second task: a small language model with LoRA, whose faults the ladder tells apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.lanes.train import one_thread
from ckptools.rerun.task import load_task
from ckptools.workflows.rerun import Rerun, rerun
from tests.builders.rerun_tasks import train

FILE = '''
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

WORDS, LENGTH = 24, 12

def sentences(count, generator=None):
    """Every second word follows from the one before it, and half of the others from two before."""
    x = torch.randint(0, WORDS, (count, LENGTH), generator=generator)
    for place in range(1, LENGTH, 2):
        x[:, place] = (x[:, place - 1] * 5 + 3) % WORDS
    return x

class Language:
    settings = {"lr": 0.01, "shuffled": False}
    clip_norm = 1.0

    def __init__(self, settings):
        unknown = set(settings) - set(self.settings)
        if unknown:
            raise ValueError(f"unknown: {sorted(unknown)}")
        self.chosen = {**self.settings, **settings}

    def build(self):
        config = GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=32, n_layer=4, n_head=2,
                            bos_token_id=0, eos_token_id=0, tie_word_embeddings=False)
        lora = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True,
                          modules_to_save=["wte", "lm_head"])
        model = get_peft_model(GPT2LMHeadModel(config), lora)
        for name, parameter in model.named_parameters():  # a base that learns, but for attention
            parameter.requires_grad_("base_layer" not in name and "original_module" not in name)
        return model

    def optimizer(self, model):
        learning = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(learning, lr=self.chosen["lr"])

    def batches(self, seed):
        while True:
            yield self._seen(sentences(32))

    def _seen(self, x):
        return x[:, torch.randperm(LENGTH)] if self.chosen["shuffled"] else x

    def loss(self, model, batch):
        logits = model(input_ids=batch).logits
        told = functional.cross_entropy(logits[:, 0:-1:2].flatten(0, 1), batch[:, 1::2].flatten())
        rest = functional.cross_entropy(logits[:, 1:-1:2].flatten(0, 1), batch[:, 2::2].flatten())
        return {"told": told, "rest": rest}

    def evaluate(self, model):
        x = self._seen(sentences(128, torch.Generator().manual_seed(7)))
        terms = {name: float(value) for name, value in self.loss(model, x).items()}
        return {"loss": terms["told"] + terms["rest"], **terms}
'''

State = dict[str, Any]

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Path]]:
    """The task's specification, and an earlier and a later checkpoint of its run."""
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("language")
    (folder / "language.py").write_text(FILE)
    spec = f"{folder / 'language.py'}:Language"
    with one_thread():
        earlier, later = train(load_task(spec), folder, (100, 130))
        yield spec, earlier, later


def ask(
    run: tuple[str, Path, Path],
    folder: Path,
    harm: Callable[[State], None],
    **options: Any,
) -> Rerun:
    spec, earlier, later = run
    state = torch.load(later, weights_only=True)
    with torch.no_grad():
        harm(state)
    torch.save(state, folder / "sick.pth")
    return rerun(folder / "sick.pth", spec, earlier=earlier, **options)


def block(state: State, number: int) -> dict[str, torch.Tensor]:
    return {n: v for n, v in state["model"].items() if f".h.{number}." in n}


def matrices(state: State, number: int) -> list[torch.Tensor]:
    return [value for value in block(state, number).values() if value.dim() == 2]


def scaled(state: State) -> None:
    for value in matrices(state, 2):
        value *= 10.0


def noisy(state: State) -> None:
    generator = torch.Generator().manual_seed(1)
    for value in matrices(state, 1):
        value += 6.0 * value.std() * torch.randn(value.shape, generator=generator)


def huge(state: State) -> None:
    value = next(v for n, v in block(state, 3).items() if n.endswith("mlp.c_fc.weight"))
    value.view(-1).view(torch.int32)[5] ^= 1 << 30


@pytest.mark.parametrize(("harm", "number"), [(scaled, 2), (noisy, 1), (huge, 3)])
def test_damaged_blocks_are_named(
    run: tuple[str, Path, Path], tmp_path: Path, harm: Callable[[State], None], number: int
) -> None:
    found = ask(run, tmp_path, harm)
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "weights")
    assert found.verdict.module is not None
    assert f"h.{number}" in found.verdict.module


def test_a_harmless_flip_is_cleared(run: tuple[str, Path, Path], tmp_path: Path) -> None:
    def harmless(state: State) -> None:
        matrices(state, 0)[0].view(-1).view(torch.int32)[3] ^= 1 << 3

    found = ask(run, tmp_path, harmless, suspects=("*.h.0",))
    assert (found.verdict.decision, found.verdict.cause) == ("refuted", "none")


def test_a_sick_optimizer_state_is_blamed(run: tuple[str, Path, Path], tmp_path: Path) -> None:
    def shrunk(state: State) -> None:
        for slots in state["optimizer"]["state"].values():
            slots["exp_avg_sq"] *= 1e-6

    found = ask(run, tmp_path, shrunk)
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "optimizer")


def test_a_learning_rate_is_blamed_on_nobody_else(
    run: tuple[str, Path, Path], tmp_path: Path
) -> None:
    def fast(state: State) -> None:
        for group in state["optimizer"]["param_groups"]:
            group["lr"] *= 30.0

    found = ask(run, tmp_path, fast)
    assert (found.verdict.decision, found.verdict.cause) == ("refuted", "learning-rate")


def test_blocks_that_changed_places_are_both_named(
    run: tuple[str, Path, Path], tmp_path: Path
) -> None:
    def swapped(state: State) -> None:
        for name, value in block(state, 1).items():
            other = state["model"][name.replace(".h.1.", ".h.2.")]
            kept = value.clone()
            value.copy_(other)
            other.copy_(kept)

    found = ask(run, tmp_path, swapped)
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "weights")
    named = (found.verdict.module or "").split(", ")
    assert [one.rpartition(".")[2] for one in sorted(named)] == ["1", "2"]


def test_a_flip_in_the_frozen_attention_is_found(
    run: tuple[str, Path, Path], tmp_path: Path
) -> None:
    """It may saturate the attention, which the loss hardly feels and the gradient does."""

    def flipped(state: State) -> None:
        names = [n for n in block(state, 2) if n.endswith("attn.c_attn.base_layer.weight")]
        state["model"][names[0]].view(-1).view(torch.int32)[7] ^= 1 << 30

    found = ask(run, tmp_path, flipped)
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "weights")
    assert found.verdict.module is not None
    assert found.verdict.module.endswith("h.2")


def test_zeroed_squares_are_blamed_on_the_optimizer(
    run: tuple[str, Path, Path], tmp_path: Path
) -> None:
    def zeroed(state: State) -> None:
        for slots in state["optimizer"]["state"].values():
            slots["exp_avg_sq"].zero_()

    found = ask(run, tmp_path, zeroed)
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "optimizer")


def test_shuffled_moments_are_never_blamed_on_the_weights(
    run: tuple[str, Path, Path], tmp_path: Path
) -> None:
    """At the end of this run they do little harm: a few steps hardly feel them."""

    def shuffled(state: State) -> None:
        torch.manual_seed(0)
        for slots in state["optimizer"]["state"].values():
            flat = slots["exp_avg"].view(-1)
            flat.copy_(flat[torch.randperm(flat.numel())])

    found = ask(run, tmp_path, shuffled)
    assert found.verdict.cause in ("optimizer", "none", "undecided")


def test_shuffled_words_are_blamed_on_the_data(run: tuple[str, Path, Path], tmp_path: Path) -> None:
    spec, earlier, _ = run
    path = spec.partition(":")[0]
    task = load_task(spec)
    model = task.build()
    state = torch.load(earlier, weights_only=True)
    model.load_state_dict(state["model"])
    with torch.no_grad():
        value = task.evaluate(model.eval())["loss"]
    text = (
        Path(path)
        .read_text()
        .replace("    clip_norm = 1.0\n", f"    clip_norm = 1.0\n    logged = {{3: {value}}}\n")
    )
    (tmp_path / "language_log.py").write_text(text)
    torch.save({**state, "epoch": 3}, tmp_path / "earlier.pth")
    sick = f"{tmp_path / 'language_log.py'}:Language", tmp_path / "earlier.pth", run[2]
    found = ask(sick, tmp_path, lambda state: None, settings={"shuffled": True})
    assert (found.verdict.decision, found.verdict.cause) == ("refuted", "data-or-code")


def test_adapters_alone_are_loaded_beside_the_frozen_base(
    run: tuple[str, Path, Path], tmp_path: Path
) -> None:
    """What a run trained is enough, and its names in PEFT's files are known."""
    spec, earlier, later = run
    for path in (earlier, later):
        state = torch.load(path, weights_only=True)
        frozen = ("base_layer", "original_module")
        state["model"] = {
            name.replace(".modules_to_save.default", "").replace(".default", ""): value
            for name, value in state["model"].items()
            if not any(word in name for word in frozen)
        }
        torch.save(state, tmp_path / path.name)
    found = rerun(tmp_path / later.name, spec, earlier=tmp_path / earlier.name)
    assert any("frozen tensors are not in the checkpoint" in one for one in found.not_judged)
    assert math.isfinite(found.seconds)
