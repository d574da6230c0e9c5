"""References in tiles: each tile steers its own part of the picture."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import host
from .apply import ApplyNode
from .arithmetic.tiles import tiled
from .execute import ImageInputs, execute, extractor_for
from .inputs import WEIGHT_TO_3
from .request import LegacyApplySettings, Weight
from .settings import exact_legacy
from .values import adapter_of


class TiledNode(ApplyNode):
    TITLE = "IPAdapter Tiled"
    REQUIRED = (
        "model ipadapter image weight weight_type combine_embeds start_at end_at sharpening embeds_scaling"
    )
    OWN = {"weight": WEIGHT_TO_3}
    RETURN_TYPES = ("MODEL", "IMAGE", "MASK")
    RETURN_NAMES = ("MODEL", "tiles", "masks")
    FUNCTION = "apply_tiled"

    def apply_tiled(
        self,
        model: Any,
        ipadapter: Any,
        image: Tensor,
        weight: Weight,
        weight_type: str,
        start_at: float,
        end_at: float,
        sharpening: float,
        combine_embeds: str = "concat",
        image_negative: Tensor | None = None,
        attn_mask: Tensor | None = None,
        clip_vision: Any = None,
        embeds_scaling: str = "V only",
        encode_batch_size: int = 0,
    ) -> tuple[Any, Tensor, Tensor]:
        adapter = adapter_of(ipadapter)
        host.check_model(model, adapter)
        extractor = extractor_for(adapter, ipadapter, clip_vision, None, weight)
        tiles, masks = tiled(image, attn_mask, sharpening, exact_legacy())
        count = len(tiles) // len(image)
        for tile, mask in zip(tiles.chunk(count), masks.chunk(count), strict=True):
            settings = LegacyApplySettings(
                weight, weight_type, start_at, end_at, embeds_scaling, mask, unfold=self.unfold_batch
            )
            pictures = ImageInputs(tile, None, image_negative, combine_embeds, encode_batch_size)
            model, _ = execute(model, extractor, adapter, pictures, settings)
        return model, tiles, masks


class TiledBatchNode(TiledNode):
    TITLE = "IPAdapter Tiled Batch"
    REQUIRED = (
        "model ipadapter image weight weight_type start_at end_at sharpening embeds_scaling encode_batch_size"
    )
    unfold = True


CLASSES = {"IPAdapterTiled": TiledNode, "IPAdapterTiledBatch": TiledBatchNode}
