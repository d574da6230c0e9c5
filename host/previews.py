"""Pictures that the page shows on a node, as the host's own preview nodes give them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import folder_paths
from torch import Tensor

from ..ipadapter_core.pictures.sheets import as_image

MOST = 16  # pictures on one node
_FAST = 1  # of PNG's levels of compression


def preview(pictures: Tensor, most: int = MOST) -> dict[str, Any]:
    """The `ui` part of a node's answer: the first of these pictures (n, H, W, 3), written to the temporary folder."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for picture in pictures[:most]:
        name = f"image_prompt_{uuid.uuid4().hex[:12]}.png"
        as_image(picture).save(folder / name, compress_level=_FAST)
        shown.append({"filename": name, "subfolder": "", "type": "temp"})
    return {"images": shown}
