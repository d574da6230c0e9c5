"""Base models to train on, of any family that adapters are trained for: as connected, or from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.sd
import comfy.utils

from ..ipadapter_core.errors import CheckpointError
from ..ipadapter_core.faces.analysis import FaceAnalysis
from ..ipadapter_core.families import table
from ..ipadapter_core.families.flux import CHROMA, FLUX
from ..ipadapter_core.families.lumina import NEXT_DIT
from ..ipadapter_core.families.qwen import QWEN
from ..ipadapter_core.families.sd3 import SD3
from . import face_models
from .training import HostBase
from .training_transformers import TransformerBase
from .vision import load_clip_vision

# the host's name of the kind of text encoders
_CLIP_TYPES = {
    FLUX.name: "FLUX",
    SD3.name: "SD3",
    CHROMA.name: "CHROMA",
    QWEN.name: "QWEN_IMAGE",
    NEXT_DIT.name: "LUMINA2",
}


def training_base(
    model: Any, vae: Any, clip: Any, clip_vision: Any, owned: bool = False, faces: FaceAnalysis | None = None
) -> HostBase:
    """As of HostBase, for the model's family."""
    sites = table.model_sites(model.get_model_object("diffusion_model"))
    kind = TransformerBase if sites and sites[0].architecture in _CLIP_TYPES else HostBase
    return kind(model, vae, clip, clip_vision, owned, faces)


@dataclass(frozen=True)
class BaseFiles:
    """Paths. checkpoint: with everything in it; or else diffusion_model, text_encoders and vae apart, as transformers
    are published. face_model: name of its folder, '' for none."""

    clip_vision: str
    checkpoint: str = ""
    diffusion_model: str = ""
    text_encoders: tuple[str, ...] = ()
    vae: str = ""
    face_model: str = ""


def load_base(files: BaseFiles) -> HostBase:
    """A base model from files, by the host's own loaders. Raises CheckpointError for a file that the host does not know."""
    faces = FaceAnalysis.open(face_models.path_of(files.face_model)) if files.face_model else None
    model, clip, vae = _parts(files)
    return training_base(model, vae, clip, load_clip_vision(files.clip_vision), owned=True, faces=faces)


def _parts(files: BaseFiles) -> tuple[Any, Any, Any]:
    if files.checkpoint:
        loaded = comfy.sd.load_checkpoint_guess_config(files.checkpoint, output_vae=True, output_clip=True)
        model, clip, vae = loaded[:3]
        own = clip is not None and vae is not None
        if not own and not (files.text_encoders and files.vae):
            raise CheckpointError(
                f"{files.checkpoint} holds no text encoder or no VAE. Give them apart, as text_encoders and vae_file."
            )
    else:
        # older hosts have it under the name of UNets
        load = getattr(comfy.sd, "load_diffusion_model", None) or comfy.sd.load_unet
        model, clip, vae = load(files.diffusion_model), None, None
    if files.vae:
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(files.vae))
    if files.text_encoders:
        clip = _text_encoders(model, files.text_encoders)
    return model, clip, vae


def _text_encoders(model: Any, paths: tuple[str, ...]) -> Any:
    sites = table.model_sites(model.get_model_object("diffusion_model"))
    name = _CLIP_TYPES.get(sites[0].architecture if sites else "", "STABLE_DIFFUSION")
    return comfy.sd.load_clip(ckpt_paths=[*paths], clip_type=getattr(comfy.sd.CLIPType, name))
