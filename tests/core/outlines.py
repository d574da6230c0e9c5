"""Full-size model files that cost no disk: a safetensors header, and as much nothing after it as it promises."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.layouts import SD15, SDXL, Shape, Table


def write_outline(
    path: Path, table: Table, metadata: Mapping[str, str] | None = None, shuffle: int = 0
) -> Path:
    """Half-precision tensors of these shapes, all zero, sparse on disk; keys in an order of their own per `shuffle`."""
    keys = list(table)
    random.Random(shuffle).shuffle(keys)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key in keys:
        start, end = end, end + 2 * math.prod(table[key])
        header[key] = {"dtype": "F16", "shape": list(table[key]), "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    return path


def encoder(layers: int, width: int, projection: int, positions: int, patch: int = 14) -> Table:
    """CLIP vision as transformers names it."""
    table: Table = {
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.position_embedding.weight": (positions, width),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.pre_layrnorm.weight": (width,),
        "vision_model.post_layernorm.weight": (width,),
    }
    for n in range(layers):
        table[f"vision_model.encoder.layers.{n}.layer_norm1.weight"] = (width,)
        table[f"vision_model.encoder.layers.{n}.self_attn.q_proj.weight"] = (width, width)
    return table | ({"visual_projection.weight": (projection, width)} if projection else {})


def open_clip(layers: int, width: int, projection: int, positions: int, patch: int = 14) -> Table:
    """The same as open_clip names it, with its text model."""
    table: Table = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (positions, width),
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.proj": (width, projection),
        "transformer.resblocks.0.ln_1.weight": (1024,),
    }
    for n in range(layers):
        table[f"visual.transformer.resblocks.{n}.ln_1.weight"] = (width,)
        table[f"visual.transformer.resblocks.{n}.attn.in_proj_weight"] = (3 * width, width)
    return table


def siglip(head: bool = True) -> Table:
    """SigLIP so400m of 384 pixels, with its pooling head or without."""
    table = encoder(*SIGLIP)
    del table["vision_model.embeddings.class_embedding"]
    width = SIGLIP[1]
    parts: Table = {
        "probe": (1, 1, width),
        "attention.in_proj_weight": (3 * width, width),
        "attention.in_proj_bias": (3 * width,),
        "attention.out_proj.weight": (width, width),
        "attention.out_proj.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
        "mlp.fc1.weight": (4304, width),
        "mlp.fc1.bias": (4304,),
        "mlp.fc2.weight": (width, 4304),
        "mlp.fc2.bias": (width,),
    }
    return table | ({f"vision_model.head.{name}": shape for name, shape in parts.items()} if head else {})


# Layers, width, projection, positions: of the configurations published with the models.
VIT_H, VIT_G, VIT_L, VIT_L336 = (
    (32, 1280, 1024, 257),
    (48, 1664, 1280, 257),
    (24, 1024, 768, 257),
    (24, 1024, 768, 577),
)
SIGLIP = (27, 1152, 0, 729)


def face_lora(widths: tuple[int, ...] = SD15, context: int = 768, rank: int = 128) -> Table:
    """FaceID's LoRA as a file of its own: q, k, v and out of both attentions of every block."""
    return dict(_lora_pairs(widths, context, rank))


def _lora_pairs(widths: tuple[int, ...], context: int, rank: int) -> Iterator[tuple[str, Shape]]:
    for n, width in enumerate(widths):
        for attention in (1, 2):
            for matrix in ("q", "k", "v", "out_0"):
                read = context if attention == 2 and matrix in "kv" else width
                key = f"lora_unet_blocks_{n}_attn{attention}_to_{matrix}"
                yield f"{key}.lora_down.weight", (rank, read)
                yield f"{key}.lora_up.weight", (width, rank)


FACE_LORAS = {"SD1.5": face_lora(), "SDXL": face_lora(SDXL, 2048)}
