"""The example of docs/library.md in a process of its own, in which importing ComfyUI raises, beside diffusers' IP-Adapter.

Arguments: a file with the lines of the example, and a folder to work in. Writes the largest errors and effects, and what was
imported, as JSON.
"""

from __future__ import annotations

import copy
import json
import math
import os
import runpy
import sys
from pathlib import Path
from typing import Any

HOST = ("comfy", "folder_paths", "nodes", "server", "execution")
WEIGHT = 0.8
SD15: dict[str, Any] = {
    "block_out_channels": (32, 64, 128, 128),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL: dict[str, Any] = {
    "block_out_channels": (32, 64, 128),
    "cross_attention_dim": 2048,
    "attention_head_dim": (1, 2, 4),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def main(example: Path, folder: Path) -> None:
    sys.modules.update(dict.fromkeys(HOST))  # importing one raises ImportError
    import ipadapter_core

    at_import = sorted({name.split(".")[0] for name in sys.modules if sys.modules[name] is not None})
    os.chdir(folder)
    found = {name: errors(example, config) for name, config in (("SD1.5", SD15), ("SDXL", SDXL))}
    of_host = [name for name in HOST if sys.modules[name] is not None]
    print(
        json.dumps(
            {"errors": found, "at import": at_import, "core": ipadapter_core.__file__, "host": of_host}
        )
    )


def errors(example: Path, config: dict[str, Any]) -> tuple[float, float]:
    """(largest difference from diffusers' adapter, largest difference from no adapter) of one call of a small UNet."""
    import torch
    from bootstrap import allow_torchvision

    allow_torchvision()
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel(**config).requires_grad_(False).eval()
    width = config["cross_attention_dim"]
    random(unet.state_dict())
    adapter = base_adapter(unet, width)
    flat = {f"{role}.{key}": tensor for role, tensors in adapter.items() for key, tensor in tensors.items()}
    save_file(flat, "ip-adapter_sd15.safetensors")
    embeds = torch.randn(1, 1024)
    inputs: dict[str, Any] = {
        "sample": torch.randn(2, 4, 16, 16),
        "timestep": 500,
        "encoder_hidden_states": torch.randn(2, 7, width),
    }
    added: dict[str, Any] = {}
    if "addition_embed_type" in config:
        added = {"text_embeds": torch.randn(2, 1280), "time_ids": torch.rand(2, 6)}

    theirs: Any = copy.deepcopy(unet)
    theirs._load_ip_adapter_weights([adapter], low_cpu_mem_usage=True)
    for processor in theirs.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [WEIGHT]
    both = torch.stack((torch.zeros_like(embeds), embeds))  # (2, 1, 1024)
    with torch.inference_mode():
        plain = unet(**inputs, added_cond_kwargs=added).sample
        expected = theirs(**inputs, added_cond_kwargs={**added, "image_embeds": [both]}).sample
        runpy.run_path(str(example), {"unet": unet, "image_embeds": embeds})
        ours = unet(**inputs, added_cond_kwargs=added).sample
    return (ours - expected).abs().max().item(), (ours - plain).abs().max().item()


def base_adapter(unet: Any, width: int) -> dict[str, dict[str, Any]]:
    """A random base adapter for this UNet, numbered as diffusers numbers attention processors."""
    import torch

    matrices = {
        f"{number}.to_{which}_ip.weight": torch.empty(
            unet.get_submodule(name.removesuffix(".processor")).to_k.out_features, width
        )
        for number, name in enumerate(unet.attn_processors)
        if name.endswith("attn2.processor")
        for which in "kv"
    }
    projection = {
        "proj.weight": torch.empty(4 * width, 1024),
        "proj.bias": torch.empty(4 * width),
        "norm.weight": torch.empty(width),
        "norm.bias": torch.empty(width),
    }
    return {"image_proj": random(projection), "ip_adapter": random(matrices)}


def random(tensors: dict[str, Any]) -> dict[str, Any]:
    """Filled with values of unit gain; norms and biases that are not trivial."""
    import torch

    for key, tensor in tensors.items():
        noise = torch.randn(tensor.shape)
        if tensor.ndim < 2:
            tensor.copy_(noise * 0.1 + (0.0 if key.endswith("bias") else 1.0))
        else:
            tensor.copy_(noise / math.sqrt(math.prod(tensor.shape[1:])))
    return tensors


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
