"""Image Prompt (IP-Adapter) for ComfyUI. Importable without ComfyUI, as tests and tools do: then there are no nodes."""

import importlib.util

if __package__ and importlib.util.find_spec("comfy"):
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
else:
    NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = {}, {}

WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
