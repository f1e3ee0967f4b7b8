"""The tensor names and shapes of well-known models, small and generated.

Each function returns ``{name: shape}`` in the order of the model's ``state_dict()``.
"""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]

WIDTH, HIDDEN, WORDS = 16, 32, 50


def linear(name: str, out: int, into: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})


def norm(name: str, width: int = WIDTH, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (width,)} | ({f"{name}.bias": (width,)} if bias else {})


def batch_norm(name: str, width: int) -> Shapes:
    running = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return norm(name, width) | running | {f"{name}.num_batches_tracked": ()}


def embedding(name: str, rows: int, width: int = WIDTH) -> Shapes:
    return {f"{name}.weight": (rows, width)}


def conv(name: str, out: int, into: int, size: int, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (out, into, size, size)} | ({f"{name}.bias": (out,)} if bias else {})


def under(prefix: str, *parts: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for part in parts for name, shape in part.items()}


def joined(*parts: Shapes) -> Shapes:
    return {name: shape for part in parts for name, shape in part.items()}


def repeated(prefix: str, count: int, *parts: Shapes) -> Shapes:
    return joined(*(under(f"{prefix}.{index}", *parts) for index in range(count)))


def _projections(prefix: str, names: str, bias: bool = False) -> Shapes:
    return under(prefix, *(linear(name, WIDTH, WIDTH, bias) for name in names.split()))


def llama(blocks: int = 3, mlp: Shapes | None = None) -> Shapes:
    swiglu = joined(
        linear("mlp.gate_proj", HIDDEN, WIDTH, False),
        linear("mlp.up_proj", HIDDEN, WIDTH, False),
        linear("mlp.down_proj", WIDTH, HIDDEN, False),
    )
    block = joined(
        _projections("self_attn", "q_proj k_proj v_proj o_proj"),
        mlp or swiglu,
        norm("input_layernorm", bias=False),
        norm("post_attention_layernorm", bias=False),
    )
    return joined(
        embedding("model.embed_tokens", WORDS),
        repeated("model.layers", blocks, block),
        norm("model.norm", bias=False),
        linear("lm_head", WORDS, WIDTH, False),
    )


def mixtral(fused: bool, blocks: int = 3, experts: int = 4) -> Shapes:
    router = linear("gate", experts, WIDTH, False)
    if fused:
        held: Shapes = {
            "experts.gate_up_proj": (experts, 2 * HIDDEN, WIDTH),
            "experts.down_proj": (experts, WIDTH, HIDDEN),
        }
        return llama(blocks, under("mlp", router, held))
    expert = joined(
        linear("w1", HIDDEN, WIDTH, False),
        linear("w2", WIDTH, HIDDEN, False),
        linear("w3", HIDDEN, WIDTH, False),
    )
    return llama(blocks, under("block_sparse_moe", router, repeated("experts", experts, expert)))


def gpt2(blocks: int = 3) -> Shapes:
    block = joined(
        norm("ln_1"),
        {"attn.c_attn.weight": (WIDTH, 3 * WIDTH), "attn.c_attn.bias": (3 * WIDTH,)},
        {"attn.c_proj.weight": (WIDTH, WIDTH), "attn.c_proj.bias": (WIDTH,)},
        norm("ln_2"),
        {"mlp.c_fc.weight": (WIDTH, HIDDEN), "mlp.c_fc.bias": (HIDDEN,)},
        {"mlp.c_proj.weight": (HIDDEN, WIDTH), "mlp.c_proj.bias": (WIDTH,)},
    )
    body = joined(
        embedding("wte", WORDS), embedding("wpe", 24), repeated("h", blocks, block), norm("ln_f")
    )
    return under("transformer", body) | linear("lm_head", WORDS, WIDTH, False)


def t5(blocks: int = 3) -> Shapes:
    def half(name: str, attentions: list[str]) -> Shapes:
        mlp = joined(
            linear("DenseReluDense.wi", HIDDEN, WIDTH, False),
            linear("DenseReluDense.wo", WIDTH, HIDDEN, False),
            norm("layer_norm", bias=False),
        )
        parts = [
            joined(_projections(attention, "q k v o"), norm("layer_norm", bias=False))
            for attention in attentions
        ]
        layers = [under(f"layer.{index}", part) for index, part in enumerate([*parts, mlp])]
        bias = embedding(f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias", 32, 2)
        stack = repeated(f"{name}.block", blocks, *layers)
        return joined(stack, bias, norm(f"{name}.final_layer_norm", bias=False))

    return joined(
        embedding("shared", WORDS),
        embedding("encoder.embed_tokens", WORDS),
        half("encoder", ["SelfAttention"]),
        embedding("decoder.embed_tokens", WORDS),
        half("decoder", ["SelfAttention", "EncDecAttention"]),
        linear("lm_head", WORDS, WIDTH, False),
    )


def vit(blocks: int = 3) -> Shapes:
    block = joined(
        norm("norm1"),
        linear("attn.qkv", 3 * WIDTH, WIDTH),
        linear("attn.proj", WIDTH, WIDTH),
        norm("norm2"),
        linear("mlp.fc1", HIDDEN, WIDTH),
        linear("mlp.fc2", WIDTH, HIDDEN),
    )
    return joined(
        {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 17, WIDTH)},
        conv("patch_embed.proj", WIDTH, 3, 4, bias=True),
        repeated("blocks", blocks, block),
        norm("norm"),
        linear("head", 10, WIDTH),
    )


def torchvision_vit(blocks: int = 3) -> Shapes:
    block = joined(
        norm("ln_1"),
        _mha("self_attention"),
        norm("ln_2"),
        linear("mlp.0", HIDDEN, WIDTH),
        linear("mlp.3", WIDTH, HIDDEN),
    )
    layers = (under(f"encoder.layers.encoder_layer_{index}", block) for index in range(blocks))
    return joined(
        {"class_token": (1, 1, WIDTH)},
        conv("conv_proj", WIDTH, 3, 4, bias=True),
        {"encoder.pos_embedding": (1, 17, WIDTH)},
        *layers,
        norm("encoder.ln"),
        linear("heads.head", 10, WIDTH),
    )


def swin(depths: tuple[int, ...] = (2, 2, 6, 2)) -> Shapes:
    parts = [conv("patch_embed.proj", WIDTH, 3, 4, bias=True), norm("patch_embed.norm")]
    for stage, depth in enumerate(depths):
        width = WIDTH * 2**stage
        block = joined(
            norm("norm1", width),
            {"attn.relative_position_bias_table": (169, 2 * 2**stage)},
            {"attn.relative_position_index": (49, 49)},
            linear("attn.qkv", 3 * width, width),
            linear("attn.proj", width, width),
            norm("norm2", width),
            linear("mlp.fc1", 4 * width, width),
            linear("mlp.fc2", width, 4 * width),
        )
        parts.append(repeated(f"layers.{stage}.blocks", depth, block))
        if stage + 1 < len(depths):
            parts.append(norm(f"layers.{stage}.downsample.norm", 4 * width))
            reduction = linear(f"layers.{stage}.downsample.reduction", 2 * width, 4 * width, False)
            parts.append(reduction)
    last = WIDTH * 2 ** (len(depths) - 1)
    return joined(*parts, norm("norm", last), linear("head", 10, last))


def _bert_attention(name: str, inner: str) -> Shapes:
    heads = under(f"{name}.{inner}", *(linear(n, WIDTH, WIDTH) for n in ("query", "key", "value")))
    output = under(f"{name}.output", linear("dense", WIDTH, WIDTH), norm("LayerNorm"))
    return joined(heads, output)


def qformer(inner: str = "self", root: str = "Qformer.bert", blocks: int = 4) -> Shapes:
    """LAVIS spells ``self`` where transformers spells ``attention``; odd blocks lack the cross."""
    parts: list[Shapes] = []
    for index in range(blocks):
        cross = _bert_attention("crossattention", inner) if index % 2 == 0 else {}
        block = joined(
            _bert_attention("attention", inner),
            cross,
            linear("intermediate_query.dense", HIDDEN, WIDTH),
            linear("output_query.dense", WIDTH, HIDDEN),
            norm("output_query.LayerNorm"),
        )
        parts.append(under(f"{root}.encoder.layer.{index}", block))
    return joined(*parts)


def blip2_lavis() -> Shapes:
    return joined(
        {"query_tokens": (1, 8, WIDTH)},
        norm("ln_vision"),
        norm("Qformer.bert.embeddings.LayerNorm"),
        qformer(),
        linear("llm_proj", 2 * WIDTH, WIDTH),
    )


def llava() -> Shapes:
    projector = joined(
        linear("model.mm_projector.0", WIDTH, WIDTH), linear("model.mm_projector.2", WIDTH, WIDTH)
    )
    return llama() | projector


def _mha(name: str) -> Shapes:
    entry = {f"{name}.in_proj_weight": (3 * WIDTH, WIDTH), f"{name}.in_proj_bias": (3 * WIDTH,)}
    return entry | linear(f"{name}.out_proj", WIDTH, WIDTH)


def nn_transformer(blocks: int = 3) -> Shapes:
    def half(name: str, attentions: tuple[str, ...]) -> Shapes:
        block = joined(
            *(_mha(attention) for attention in attentions),
            linear("linear1", HIDDEN, WIDTH),
            linear("linear2", WIDTH, HIDDEN),
            *(norm(f"norm{index + 1}") for index in range(len(attentions) + 1)),
        )
        return repeated(f"{name}.layers", blocks, block) | norm(f"{name}.norm")

    return half("encoder", ("self_attn",)) | half("decoder", ("self_attn", "multihead_attn"))


def resnet(blocks: tuple[int, ...] = (2, 2, 3, 1)) -> Shapes:
    parts = [conv("conv1", 16, 3, 7), batch_norm("bn1", 16)]
    into = 16
    for stage, count in enumerate(blocks, start=1):
        out = 16 * 2 ** (stage - 1)
        for index in range(count):
            block = joined(
                conv("conv1", out, into, 3),
                batch_norm("bn1", out),
                conv("conv2", out, out, 3),
                batch_norm("bn2", out),
            )
            if index == 0 and stage > 1:
                block |= conv("downsample.0", out, into, 1) | batch_norm("downsample.1", out)
            parts.append(under(f"layer{stage}.{index}", block))
            into = out
    return joined(*parts, linear("fc", 10, into))


def _box_mlp(name: str) -> Shapes:
    widths = ((WIDTH, WIDTH), (WIDTH, WIDTH), (4, WIDTH))
    return joined(*(linear(f"{name}.layers.{i}", *sizes) for i, sizes in enumerate(widths)))


def detr(blocks: int = 6) -> Shapes:
    return joined(
        under("transformer", nn_transformer(blocks)),
        linear("class_embed", 4, WIDTH),
        _box_mlp("bbox_embed"),
        embedding("query_embed", 20),
        conv("input_proj", WIDTH, 32, 1, bias=True),
        under("backbone.0.body", resnet()),
    )


def _deformable(name: str, heads: int = 8, levels: int = 4, points: int = 4) -> Shapes:
    return under(
        name,
        linear("sampling_offsets", heads * levels * points * 2, WIDTH),
        linear("attention_weights", heads * levels * points, WIDTH),
        linear("value_proj", WIDTH, WIDTH),
        linear("output_proj", WIDTH, WIDTH),
    )


def deformable_detr(blocks: int = 6) -> Shapes:
    encoder = joined(
        _deformable("self_attn"),
        norm("norm1"),
        linear("linear1", HIDDEN, WIDTH),
        linear("linear2", WIDTH, HIDDEN),
        norm("norm2"),
    )
    decoder = joined(
        _deformable("cross_attn"),
        norm("norm1"),
        _mha("self_attn"),
        norm("norm2"),
        linear("linear1", HIDDEN, WIDTH),
        linear("linear2", WIDTH, HIDDEN),
        norm("norm3"),
    )
    return joined(
        {"transformer.level_embed": (4, WIDTH)},
        repeated("transformer.encoder.layers", blocks, encoder),
        repeated("transformer.decoder.layers", blocks, decoder),
        linear("transformer.reference_points", 2, WIDTH),
        repeated("class_embed", blocks, {"weight": (4, WIDTH), "bias": (4,)}),
        joined(*(_box_mlp(f"bbox_embed.{index}") for index in range(blocks))),
        embedding("query_embed", 20, 2 * WIDTH),
    )


def maptr(blocks: int = 6) -> Shapes:
    layer = joined(
        under("attentions.0", _mha("attn")),
        _deformable("attentions.1", levels=1),
        linear("ffns.0.layers.0.0", HIDDEN, WIDTH),
        linear("ffns.0.layers.1", WIDTH, HIDDEN),
        *(norm(f"norms.{index}") for index in range(3)),
    )
    cls_branch = joined(
        linear("0", WIDTH, WIDTH), norm("1"), linear("3", WIDTH, WIDTH), norm("4"),
        linear("6", 3, WIDTH),
    )  # fmt: skip
    reg_branch = joined(linear("0", WIDTH, WIDTH), linear("2", WIDTH, WIDTH), linear("4", 2, WIDTH))
    head = joined(
        repeated("cls_branches", blocks, cls_branch),
        repeated("reg_branches", blocks, reg_branch),
        embedding("instance_embedding", 10, 2 * WIDTH),
        embedding("pts_embedding", 8, 2 * WIDTH),
        embedding("bev_embedding", 64),
        {"transformer.level_embeds": (4, WIDTH), "transformer.cams_embeds": (6, WIDTH)},
        repeated("transformer.decoder.layers", blocks, layer),
        linear("transformer.reference_points", 2, WIDTH),
        embedding("positional_encoding.row_embed", 8, WIDTH // 2),
    )
    return under("img_backbone", resnet()) | under("pts_bbox_head", head)


def lora(blocks: int = 3, rank: int = 4, adapter: str | None = "default") -> Shapes:
    """A PEFT model (``adapter`` named) or the file that PEFT saves for one (None)."""
    own = f".{adapter}" if adapter else ""
    parts = [
        joined(
            linear(f"layers.{index}.self_attn.{target}.lora_A{own}", rank, WIDTH, False),
            linear(f"layers.{index}.self_attn.{target}.lora_B{own}", WIDTH, rank, False),
        )
        for index in range(blocks)
        for target in ("q_proj", "v_proj")
    ]
    adapters = under("base_model.model.model", *parts)
    if adapter is None:
        return adapters
    wrapped = {
        key.replace(".q_proj.", ".q_proj.base_layer.").replace(".v_proj.", ".v_proj.base_layer."): s
        for key, s in llama(blocks).items()
    }
    return under("base_model.model", wrapped) | adapters


def dcgan_discriminator() -> Shapes:
    return joined(
        conv("main.0", 16, 1, 4),
        conv("main.2", 32, 16, 4),
        batch_norm("main.3", 32),
        conv("main.5", 1, 32, 4),
    )


ALL = {
    "llama": llama,
    "mixtral-fused": lambda: mixtral(fused=True),
    "mixtral": lambda: mixtral(fused=False),
    "gpt2": gpt2,
    "t5": t5,
    "vit": vit,
    "torchvision-vit": torchvision_vit,
    "swin": swin,
    "blip2-lavis": blip2_lavis,
    "blip2-qformer": lambda: qformer(inner="attention", root="qformer"),
    "llava": llava,
    "nn.Transformer": nn_transformer,
    "resnet": resnet,
    "detr": detr,
    "deformable-detr": deformable_detr,
    "maptr": maptr,
    "lora": lora,
    "lora-adapter": lambda: lora(adapter=None),
    "dcgan": dcgan_discriminator,
}
