"""The only room that touches comfy's internals: models, patch slots, LoRA, devices, CLIP vision."""

from .adapters import HostAdapter, load_adapter, on_device, progress_bar, say
from .apply import apply_prompt, base_family, check_model, model_sites
from .lora import ensure_lora, lora_file
from .patches import Residual, SitePatch, StepClock, text_attention
from .vision import (
    Encoding,
    Reference,
    encode_faces,
    encode_images,
    encode_prompt,
    load_clip_vision,
    unconditional_features,
)

__all__ = [
    "Encoding",
    "HostAdapter",
    "Reference",
    "Residual",
    "SitePatch",
    "StepClock",
    "apply_prompt",
    "base_family",
    "check_model",
    "encode_faces",
    "encode_images",
    "encode_prompt",
    "ensure_lora",
    "load_adapter",
    "load_clip_vision",
    "lora_file",
    "model_sites",
    "on_device",
    "progress_bar",
    "say",
    "text_attention",
    "unconditional_features",
]
