from __future__ import annotations

from ckptools.rerun.shams import partners


def test_partners_are_siblings_first_then_roles_then_sizes() -> None:
    shapes = {
        "layers.0.linear1.weight": (8, 4),
        "layers.1.linear1.weight": (8, 4),
        "mlp.fc1.weight": (9, 4),
        "patch_embed.weight": (32, 1),
    }
    units = {name: name.rpartition(".")[0].removesuffix(".linear1") for name in shapes}
    assert partners("layers.0", units, shapes)[0] == "layers.1"
    assert partners("layers.0", units, shapes, without=["layers.1"])[0].startswith("mlp")
    assert len(partners("patch_embed", units, shapes)) == 3
