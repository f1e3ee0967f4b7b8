"""PEFT adapters: a file of LoRA (or similar) weights."""

from __future__ import annotations

import re

from ckptools.layouts.assembly import Assembly
from ckptools.layouts.registry import layouts
from ckptools.layouts.weights import tensors_of
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container

_ADAPTER_FILE = re.compile(
    r"(?:^|\.)(?:lora_(?:A|B|embedding_A|embedding_B)|lora_magnitude_vector|ia3_l|hada_w\d_[ab]"
    r"|lokr_w\d(?:_[ab])?|oft_R|vera_lambda_[bd]|prompt_embeddings)(?:\.weight)?$"
)
#: Share of the tensors that are adapters in a file of adapters; the rest are saved modules.
_SHARE = 0.5


class Peft:
    """Every name starts with ``base_model.model.``; the adapter's own name is left out."""

    def matches(self, container: Container) -> float:
        """Return 0.9 for a file whose tensors are mostly adapters, as PEFT saves them."""
        names = list(tensors_of(container.root))
        adapters = sum(_ADAPTER_FILE.search(name) is not None for name in names)
        return 0.9 if adapters and adapters >= _SHARE * len(names) else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return one weight set called ``adapter``."""
        assembly = Assembly(container, "peft")
        assembly.weights(container.root, (), "adapter")
        return assembly.checkpoint()


layouts.add("peft", Peft())
