"""Nodes that read and write files: adapters and saved prompts."""

from __future__ import annotations

from typing import Any

from .. import host
from ..host import folders, saved
from ..ipadapter_core.errors import shown
from ..ipadapter_core.prompt import ImagePrompt
from ..ipadapter_core.prompt_file import load_prompt, save_prompt
from ..ipadapter_core.spec import Variant
from ..ipadapter_core.variants import AMBIGUOUS
from . import names
from .entry import Node
from .inputs import CATEGORY, adapter_file_input, image_prompt_input, ipadapter_input, menu

BY_CONTENT = "by content"


class AdapterFileNode(Node):
    """Reads the adapter that its `ipadapter_file` names: checked before the host runs it, and run again when it changes."""

    FREE = "ipadapter_file"

    @classmethod
    def VALIDATE_INPUTS(cls, ipadapter_file: Any = None) -> bool | str:
        return names.problem(names.adapter_path, ipadapter_file)

    @classmethod
    def IS_CHANGED(cls, ipadapter_file: Any = None, **_: Any) -> str:
        return names.adapter_stamp(ipadapter_file)


class ImagePromptLoaderNode(AdapterFileNode):
    TITLE = "Image Prompt: Load Adapter"
    DESCRIPTION = "Loads an IP-Adapter (IPAdapter) file. The kind of adapter is read from its contents, not from its name."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "ipadapter",
        "ip-adapter",
        "IPAdapter Model Loader",
        "load ipadapter",
        "image prompt loader",
    ]
    RETURN_TYPES = ("IPADAPTER",)
    RETURN_NAMES = ("ipadapter",)
    OUTPUT_TOOLTIPS = ("The adapter, for Encode Image and Load Prompt.",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = (
            "Only for files that look alike inside: FaceID Plus and its v2, portrait unnorm and InstantID. "
            "'by content' decides by their sha256, else by their name."
        )
        choices = [BY_CONTENT, *(variant.value for variant in AMBIGUOUS)]
        return {
            "required": {"ipadapter_file": adapter_file_input(folders.adapter_files())},
            "optional": {"variant": (choices, {"default": BY_CONTENT, "tooltip": tip})},
        }

    def load(self, ipadapter_file: str, variant: str = BY_CONTENT):
        path = names.adapter_path(ipadapter_file)
        chosen = folders.adapter_variant(path) if variant == BY_CONTENT else Variant(variant)
        return (host.load_adapter(path, chosen),)


class ImagePromptSaveNode(Node):
    TITLE = "Image Prompt: Save"
    DESCRIPTION = (
        "Writes an image prompt as .safetensors in the output folder; its metadata names its adapter."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["save embeds", "IPAdapter Save Embeds", "save image prompt"]
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "save"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = "Name in the output folder, with subfolders if you like; a number is added."
        prefix = ("STRING", {"default": f"{folders.PROMPTS}/prompt", "tooltip": tip})
        return {"required": {"image_prompt": image_prompt_input(), "filename_prefix": prefix}}

    def save(self, image_prompt: ImagePrompt, filename_prefix: str):
        path = saved.new_prompt_path(filename_prefix)
        save_prompt(image_prompt, path)
        return {"ui": {"text": [f"saved {shown(path.name)}"]}}


class ImagePromptLoadNode(Node):
    TITLE = "Image Prompt: Load Prompt"
    DESCRIPTION = "Reads an image prompt that was saved, for the adapter it was made with. No CLIP vision model is needed."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["load embeds", "IPAdapter Load Embeds", "load image prompt"]
    RETURN_TYPES = ("IMAGE_PROMPT",)
    RETURN_NAMES = ("image_prompt",)
    OUTPUT_TOOLTIPS = ("The saved prompt, for Apply or Combine.",)
    FREE = "prompt_file"
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = "Saved prompts found in the input and output folders and in models/image_prompts."
        found = (menu(list(saved.saved_prompts())), {"tooltip": tip})
        return {"required": {"ipadapter": ipadapter_input(), "prompt_file": found}}

    @classmethod
    def VALIDATE_INPUTS(cls, prompt_file: str | None = None) -> bool | str:
        return names.problem(saved.prompt_path, prompt_file)

    @classmethod
    def IS_CHANGED(cls, prompt_file: str | None = None, **_: Any) -> str:
        return saved.prompt_stamp(prompt_file)

    def load(self, ipadapter: Any, prompt_file: str):
        return (load_prompt(host.adapter_of(ipadapter), saved.prompt_path(prompt_file)),)
