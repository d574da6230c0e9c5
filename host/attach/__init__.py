"""Where image prompts enter a model: what all families share, and one module for each architecture."""

from ...ipadapter_core.families.family import Architecture
from ...ipadapter_core.families.flux import FLUX
from ...ipadapter_core.families.lumina import NEXT_DIT
from ...ipadapter_core.families.qwen import QWEN
from ...ipadapter_core.families.sd3 import SD3
from ...ipadapter_core.families.unet import UNET
from .base import Attachment
from .flux import FluxAttachment
from .lumina import LuminaAttachment
from .qwen import QwenAttachment
from .sd3 import SD3Attachment
from .unet import UNetAttachment

ATTACHMENTS: dict[str, Attachment] = {
    UNET.name: UNetAttachment(),
    FLUX.name: FluxAttachment(),
    SD3.name: SD3Attachment(),
    QWEN.name: QwenAttachment(),
    NEXT_DIT.name: LuminaAttachment(),
}


def attachment_of(architecture: Architecture) -> Attachment:
    """Raises KeyError for an architecture that has none."""
    return ATTACHMENTS[architecture.adapters_of]
