"""What is decided about an adapter: one frozen spec, and the names of variants, features, families and encoders."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .families.table import family_of_shape
from .projections.base import Projection
from .variant import Variant as Variant


class Feature(str, Enum):
    """Which output of the CLIP vision encoder the projection reads."""

    IMAGE_EMBEDS = "image_embeds"  # (n, width), projected global embedding
    PENULTIMATE = "penultimate_hidden_states"  # (n, 1 + patches, width), last but one layer
    POOLED = "pooler_output"  # (n, width), what SigLIP's attention-pooling head gives
    NONE = "none"  # the face embedding is all it reads


class Identity(str, Enum):
    """Which face embedding the projection reads, of ArcFace."""

    NONE = "none"
    NORMALISED = "normalised to length 1"
    RAW = "as it comes"


class Unconditional(str, Enum):
    """What stands for 'no image' (reference: get_image_embeds of ip_adapter.py). A face embedding is zero in both."""

    ZERO_FEATURES = "zero features"
    ZERO_PIXELS = "features of zero pixels after normalisation"
    BLACK_PICTURE = "features of a black picture"
    NOTHING = "no tokens: nothing is added"


class Target(str, Enum):
    """Where λ·Attn(Q, K', V') is added."""

    ATTENTION = "what the attention gives, before its projection"
    BLOCK = "the image stream behind the block"


@dataclass(frozen=True)
class Entry:
    """How an adapter enters a model. architecture: of the model, by name. stages: whose sites it has pairs for, all where
    empty. normed_keys: whether K' is brought to length √d in each head, as the model's own keys are (no weights). timed:
    whether K' and V' follow from the timestep too, and the sites attend to the picture's own keys once more beside them.
    prefix: before the numbers of sites in a file's keys."""

    architecture: str = "UNet"
    stages: tuple[str, ...] = ()
    target: Target = Target.ATTENTION
    normed_keys: bool = False
    timed: bool = False
    prefix: str = ""


UNET_ENTRY = Entry()


@dataclass(frozen=True)
class AdapterSpec:
    """Everything that is decided about an adapter, decided once.

    feature_width: width of the encoder feature, 0 if none is read. identity_width: of the face embedding, 0 if none.
    tokens: image tokens per picture, None if one for each encoder token. token_width: of the tokens, or of the features
    where tokens follow from the timestep.
    context_width: columns of W'k, the text width of the UNet (768 SD1.5, 2048 SDXL); another than token_width where
    the UNet projects its context first (Kolors). site_widths: rows of W'k per site, in checkpoint order (down, up,
    middle). site_keys: the numbers in the file's keys, same order. lora: whether the file brings a LoRA. bias: whether K'
    and V' have one.
    """

    variant: Variant
    feature: Feature
    identity: Identity
    unconditional: Unconditional
    feature_width: int
    identity_width: int
    tokens: int | None
    token_width: int
    context_width: int
    site_widths: tuple[int, ...]
    site_keys: tuple[int, ...]
    projection: type[Projection]
    family: str
    encoder_size: int | None = None
    lora: bool = False
    entry: Entry = UNET_ENTRY
    bias: bool = False

    @property
    def encoder(self) -> str:
        """The public CLIP vision model that gives this feature."""
        if self.feature is Feature.NONE:
            return "no CLIP vision encoder"
        known = ENCODERS.get((self.feature, self.feature_width))
        if known is None:
            return "an unusual CLIP vision encoder"
        return f"{known}-{self.encoder_size}" if self.encoder_size else known

    @property
    def site_names(self) -> tuple[str, ...]:
        """What the keys of the sites' tensors begin with, in checkpoint order."""
        return tuple(f"{self.entry.prefix}{number}" for number in self.site_keys)

    @property
    def needs_context_projection(self) -> bool:
        """Whether the UNet's own projection of its context comes between tokens and K'/V'."""
        return self.token_width != self.context_width and not self.entry.timed

    @property
    def crop_size(self) -> int:
        """Side in pixels of the aligned face that the encoder is shown, as in training."""
        return self.encoder_size or family_of_shape(self.context_width, len(self.site_widths)).face_crop


ENCODERS: dict[tuple[Feature, int], str] = {
    (Feature.IMAGE_EMBEDS, 768): "CLIP ViT-L/14",
    (Feature.IMAGE_EMBEDS, 1024): "CLIP ViT-H/14",
    (Feature.IMAGE_EMBEDS, 1280): "CLIP ViT-bigG/14",
    (Feature.PENULTIMATE, 1024): "CLIP ViT-L/14",
    (Feature.PENULTIMATE, 1280): "CLIP ViT-H/14",
    (Feature.PENULTIMATE, 1664): "CLIP ViT-bigG/14",
    (Feature.PENULTIMATE, 1152): "SigLIP so400m/14-384",
    (Feature.POOLED, 1152): "SigLIP so400m/14-384",
}
