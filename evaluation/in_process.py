"""ComfyUI's own executor in this process, without a server."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import uuid
from pathlib import Path
from typing import Any

from ..__main__ import find_comfyui, start_comfyui
from ..ipadapter_core.errors import MissingFileError, SettingError
from ..ipadapter_core.files.writing import write_bytes
from .messages import SavedImage, failure, refusal_words, saved_images
from .reading import file_bytes, plain_name
from .workflow import Graph


class InProcess:
    """comfyui: the folder of a checkout; its custom nodes, this pack's among them, are loaded as its server would."""

    address = "ComfyUI"

    def __init__(self, comfyui: Path | None = None, cpu: bool = False):
        root = find_comfyui(comfyui)
        if root is None:
            raise MissingFileError(
                "ComfyUI was not found. Give its folder with --comfyui PATH, or a --server."
            )
        # one GPU for each process, before torch lists them
        if "LOCAL_RANK" in os.environ:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            number = int(os.environ["LOCAL_RANK"])
            os.environ["CUDA_VISIBLE_DEVICES"] = (
                visible[number] if number < len(visible) and visible[0] else str(number)
            )
        start_comfyui(root, cpu)
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.execution: Any = importlib.import_module("execution")
        self.folders: Any = importlib.import_module("folder_paths")
        server = importlib.import_module("server").PromptServer(self.loop)
        self.execution.PromptQueue(server)
        self._await(importlib.import_module("nodes").init_extra_nodes())
        self.executor: Any = self.execution.PromptExecutor(server, **self._caching())

    def _caching(self) -> dict[str, Any]:
        """Arguments that keep the last graph's outputs, so that models stay loaded; those that this host takes."""
        parameters = inspect.signature(self.execution.PromptExecutor.__init__).parameters
        known: dict[str, Any] = {"cache_args": {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}}
        if "cache_type" in parameters:
            known["cache_type"] = self.execution.CacheType.CLASSIC
        return {name: value for name, value in known.items() if name in parameters}

    def upload(self, picture: Path, name: str) -> str:
        """Into the input folder, as the page does."""
        safe = plain_name(name)
        folder = Path(self.folders.get_input_directory()) / "image_prompt_evaluation"
        write_bytes(folder / safe, file_bytes(picture))
        return f"image_prompt_evaluation/{safe}"

    def pictures(self, graph: Graph) -> list[bytes]:
        """The files that this graph's output nodes save. Raises SettingError with ComfyUI's words if it fails."""
        number = uuid.uuid4().hex
        takes = len(inspect.signature(self.execution.validate_prompt).parameters)
        checked = self._await(self.execution.validate_prompt(*(number, graph, None)[3 - takes :]))
        # it would run the valid outputs only
        if not checked[0] or checked[3]:
            raise SettingError(f"ComfyUI refuses the workflow: {refusal_words(checked[1], checked[3])}")
        self.executor.execute(graph, number, {}, checked[2])
        if not self.executor.success:
            raise SettingError(f"the workflow failed: {failure(list(self.executor.status_messages))}")
        images = saved_images(self.executor.history_result["outputs"])
        if images is None:
            raise SettingError(
                "the workflow saved something that is no picture. Let it end in one SaveImage."
            )
        return [self._file(image) for image in images]

    def _file(self, image: SavedImage) -> bytes:
        root = Path(self.folders.get_directory_by_type(image["type"] or "output"))
        return file_bytes(root / image["subfolder"] / image["filename"])

    def _await(self, result: Any) -> Any:
        return self.loop.run_until_complete(result) if inspect.isawaitable(result) else result
