from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ckptools.lanes.train import one_thread
from ckptools.rerun.evaluate import evaluate
from ckptools.rerun.task import load_task
from ckptools.workflows.rerun import rerun

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

FILE = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

class Data(torch.utils.data.Dataset):
    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randint(0, 16, (count, 8), generator=generator)
        self.x[:, 1::2] = (self.x[:, 0::2] * 5 + 3) % 16

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"input_ids": self.x[index], "labels": self.x[index]}

def make(settings):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=16, n_positions=8, n_embd=16, n_layer=2, n_head=2,
                        bos_token_id=0, eos_token_id=0, loss_type="ForCausalLM")
    arguments = TrainingArguments(
        output_dir=settings.get("folder", "unused"), per_device_train_batch_size=16,
        max_steps=60, save_steps=30, learning_rate=settings.get("lr", 2e-2), use_cpu=True,
        report_to=[], disable_tqdm=True, logging_steps=10_000, max_grad_norm=1.0,
    )
    return Trainer(
        model=GPT2LMHeadModel(config), args=arguments, train_dataset=Data(256, 0),
        eval_dataset=Data(64, 1), compute_metrics=accuracy,
    )

def accuracy(found):
    hits = found.predictions.argmax(-1)[:, :-1:2] == found.label_ids[:, 1::2]
    return {"eval_accuracy": float(hits.mean())}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A task's specification, and the folder of the run that its Trainer made."""
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hf")
    (folder / "hf_task.py").write_text(FILE)
    spec = f"{folder / 'hf_task.py'}:make"
    with one_thread():
        load_task(spec, {"folder": str(folder)}).given._trainer.train()
        yield spec, folder


def test_the_trainers_own_folder_is_resumed(run: tuple[str, Path]) -> None:
    spec, folder = run
    found = rerun(folder / "checkpoint-60", spec, earlier=folder / "checkpoint-30")
    assert found.verdict.decision == "refuted"
    assert found.verdict.cause == "none"


def test_it_takes_the_trainers_parts(run: tuple[str, Path]) -> None:
    spec, _ = run
    task = load_task(spec)
    model = task.build()
    assert task.clip_norm == 1.0
    optimizer = task.optimizer(model)
    assert len(optimizer.param_groups) == 2  # with and without weight decay
    scheduler = task.scheduler(optimizer)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2e-2 * 59 / 60)
    batches = task.batches(0)
    first = next(batches)
    assert [len(one["input_ids"]) for one in first] == [16]
    assert torch.equal(next(task.batches(0))[0]["input_ids"], first[0]["input_ids"])
    assert not torch.equal(next(task.batches(1))[0]["input_ids"], first[0]["input_ids"])
    later = [next(batches)[0]["input_ids"] for _ in range(16)]  # 16 batches an epoch
    assert not torch.equal(later[-1], first[0]["input_ids"])
    values = evaluate(task, model)
    assert set(values) == {"loss", "accuracy"}


def test_the_loss_is_the_models_own(run: tuple[str, Path]) -> None:
    task = load_task(run[0])
    model = task.build().eval()
    batch = next(task.batches(0))
    with torch.no_grad():
        expected = model(**batch[0]).loss
        assert torch.allclose(task.loss(model, batch)["total"], expected)


def test_damage_is_found(run: tuple[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    spec, folder = run
    sick = tmp_path / "checkpoint-60"
    sick.mkdir()
    for file in (folder / "checkpoint-60").iterdir():
        (sick / file.name).write_bytes(file.read_bytes())
    weights = load_file(sick / "model.safetensors")
    for name, value in weights.items():
        if ".h.1." in name and value.dim() == 2:
            weights[name] = value * 20.0
    save_file(weights, sick / "model.safetensors", metadata={"format": "pt"})
    found = rerun(sick, spec, earlier=folder / "checkpoint-30")
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "weights")
    assert found.verdict.module == "transformer.h.1"
