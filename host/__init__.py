"""The only room that touches comfy's internals: models, patch slots, LoRA, devices, CLIP vision."""

from .adapters import HostAdapter, load_adapter, on_device, patcher_over, progress_bar, show_status
from .apply import (
    ApplySettings,
    add_prompt,
    apply_prompt,
    base_family,
    check_model,
    model_sites,
    residuals_of,
    summary,
    watched,
    weights_for,
)
from .attach.base import Residual
from .attach.unet import SitePatch, text_attention
from .encoding import Encoding, encode_faces, encode_prompt, no_image_features
from .lora import ensure_lora, lora_file
from .previews import preview
from .server import Prompt, answer_page, loaded_nodes, offer_replacement, on_prompt, working
from .training import HostBase, gradients, load_base, stop_if_cancelled
from .values import adapter_of, clip_vision_of, face_analysis_of
from .vision import (
    Reference,
    encode_as_host,
    encode_images,
    encoder_output,
    load_clip_vision,
    prepared_squares,
    scaled_to,
    unconditional_features,
)

__all__ = [
    "ApplySettings",
    "Encoding",
    "HostAdapter",
    "HostBase",
    "Prompt",
    "Reference",
    "Residual",
    "SitePatch",
    "adapter_of",
    "add_prompt",
    "answer_page",
    "apply_prompt",
    "base_family",
    "check_model",
    "clip_vision_of",
    "encode_as_host",
    "encode_faces",
    "encode_images",
    "encode_prompt",
    "encoder_output",
    "ensure_lora",
    "face_analysis_of",
    "gradients",
    "load_adapter",
    "load_base",
    "load_clip_vision",
    "loaded_nodes",
    "lora_file",
    "model_sites",
    "no_image_features",
    "offer_replacement",
    "on_device",
    "on_prompt",
    "patcher_over",
    "prepared_squares",
    "preview",
    "progress_bar",
    "residuals_of",
    "scaled_to",
    "show_status",
    "stop_if_cancelled",
    "summary",
    "text_attention",
    "unconditional_features",
    "watched",
    "weights_for",
    "working",
]
