"""Key names of the published checkpoint layouts: diffusers' names on one side, ComfyUI's (LDM) on the other."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from .config import UNET
from .storage import Weights

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
    "controlnet_mid_block": "middle_block_out.0",
}


def unet_to_ldm(weights: Mapping[str, Tensor]) -> Weights:
    """Diffusers UNet or ControlNet weights -> LDM / cldm names."""
    return {_unet_key(key): value for key, value in weights.items()}


def unet_from_ldm(weights: Weights, names: Iterable[str]) -> Weights:
    """LDM / cldm weights -> the diffusers names wanted."""
    return {name: weights[_unet_key(name)] for name in names}


def _unet_key(key: str) -> str:
    module, kind = key.rsplit(".", 1)
    return f"{_UNET_ENDS.get(module) or _unet_block(module)}.{kind}"


def _unet_block(module: str) -> str:
    per_level = UNET.res_blocks + 1
    if m := re.fullmatch(r"controlnet_down_blocks\.(\d+)", module):
        return f"zero_convs.{m[1]}.0"
    if m := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d+)", module):
        return f"input_hint_block.{2 * int(m[1]) + 2}"
    if m := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", module):
        return f"middle_block.{2 * int(m[2]) if m[1] == 'resnets' else 1}.{_inner(m[1], m[3])}"
    if m := re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.+)", module):
        index = int(m[2]) * per_level + int(m[4]) + (m[1] == "down")
        side = "input" if m[1] == "down" else "output"
        return f"{side}_blocks.{index}.{int(m[3] == 'attentions')}.{_inner(m[3], m[5])}"
    if m := re.fullmatch(r"down_blocks\.(\d)\.downsamplers\.0\.conv", module):
        return f"input_blocks.{(int(m[1]) + 1) * per_level}.0.op"
    if m := re.fullmatch(r"up_blocks\.(\d)\.upsamplers\.0\.conv", module):
        return f"output_blocks.{(int(m[1]) + 1) * per_level - 1}.{1 if m[1] == '0' else 2}.conv"
    raise KeyError(f"not a UNet or ControlNet module of the SD1.5 layout: {module}")


def _inner(kind: str, name: str) -> str:
    return _RESNET[name] if kind == "resnets" else name
