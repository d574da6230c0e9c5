"""IP-Adapter (arXiv 2308.06721) as plain PyTorch: a picture steers a diffusion model through decoupled cross-attention.

    Z = Attn(Q, K, V) + λ · Attn(Q, K', V')      K' = c_i W'k, V' = c_i W'v, same Q

The way of the data, and what does each step:

1. a file -> `load_adapter` -> `Adapter`; `Adapter.spec` says what it is, and which features it reads
2. features of pictures (`Features`) -> `Adapter.project` -> image tokens c_i
3. tokens -> `make_prompt` -> `ImagePrompt`; `combine` makes one of several, `save_prompt` and `load_prompt` keep them
4. `ImagePrompt.keys_values`: K'/V' of every site, computed once
5. `model_sites`: the cross-attentions of a model, a UNet of diffusers or ComfyUI; `match_sites`: which K'/V' are whose
6. `SiteResidual.add_to`: adds λ · Attn(Q, K', V') at one site, before its output projection

Errors are kinds of `ImagePromptError`: sentences of what came, what is allowed, and what to do. Nothing here imports
ComfyUI. docs/library.md has an example on diffusers' UNet.
"""

from .adapter import Adapter, KeysValues, TokenSource, load_adapter
from .attention import COND, UNCOND, SiteResidual
from .checkpoint import Checkpoint, read_checkpoint
from .combine import Combine, combine
from .errors import (
    CheckpointError,
    ImagePromptError,
    MismatchError,
    MissingFileError,
    SettingError,
    UnknownAdapterError,
    WriteError,
)
from .families.matching import match_sites
from .families.site import Site
from .families.table import model_sites
from .features import Features
from .prompt import Arrange, ImagePrompt, make_prompt
from .prompt_file import is_saved_prompt, load_prompt, save_prompt
from .scaling import Scaling
from .spec import AdapterSpec, Feature, Identity, Unconditional, Variant

__all__ = [
    "COND",
    "UNCOND",
    "Adapter",
    "AdapterSpec",
    "Arrange",
    "Checkpoint",
    "CheckpointError",
    "Combine",
    "Feature",
    "Features",
    "Identity",
    "ImagePrompt",
    "ImagePromptError",
    "KeysValues",
    "MismatchError",
    "MissingFileError",
    "Scaling",
    "SettingError",
    "Site",
    "SiteResidual",
    "TokenSource",
    "Unconditional",
    "UnknownAdapterError",
    "Variant",
    "WriteError",
    "combine",
    "is_saved_prompt",
    "load_adapter",
    "load_prompt",
    "make_prompt",
    "match_sites",
    "model_sites",
    "read_checkpoint",
    "save_prompt",
]
