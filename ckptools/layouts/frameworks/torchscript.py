"""TorchScript archives: a state dict from the module tree, the code left alone."""

from __future__ import annotations

from ckptools.layouts.assembly import Assembly
from ckptools.layouts.registry import layouts
from ckptools.layouts.weights import tensors_of, weight_set
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container


class TorchScript:
    """The reader has spelled the tree's attributes as dotted names already."""

    def matches(self, container: Container) -> float:
        """Return 1 for an archive that TorchScript wrote."""
        return 1.0 if container.format == "torchscript" else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return one weight set; constants of the code are other tensors."""
        assembly = Assembly(container, "torchscript")
        tensors = tensors_of(container.root)
        weights = {key: ref for key, ref in tensors.items() if not key.startswith("constants.")}
        assembly.others.update((key, tensors[key]) for key in tensors.keys() - weights.keys())
        assembly.sets["model"] = weight_set("model", weights)
        return assembly.checkpoint()


layouts.add("torchscript", TorchScript())
