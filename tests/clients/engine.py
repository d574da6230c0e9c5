"""The host's own server and executor in this process, with this pack's nodes, small models in the places of large ones."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import folder_paths
import torch
import torch.nn.functional as F
from helpers.stand_ins import people
from helpers.workflows import node_classes, small_classes
from image_prompt.evaluation.in_process import InProcess
from torch import Tensor

import nodes as host_nodes

Graph = Mapping[str, Mapping[str, Any]]
# Of models that small ones stand in for; a client takes them from the menus.
CHECKPOINTS = {"SD1.5": "sd15-dreamshaper.safetensors", "SDXL": "sd_xl_base_1.0.safetensors"}


class Picture(host_nodes.LoadImage):
    """A picture with people, whatever its name."""

    def load_image(self, image: str) -> tuple[Any, ...]:
        return people(40, 220)

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:
        return image

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool:
        return True


class Encode(host_nodes.VAEEncode):
    def encode(self, vae: Any, pixels: Tensor) -> tuple[dict[str, Tensor], ...]:
        height, width = (side // 8 for side in pixels.shape[1:3])
        cells = F.interpolate(pixels.movedim(-1, 1), (height, width))
        return ({"samples": torch.cat((cells, cells[:, :1]), 1)},)


class Lora(host_nodes.LoraLoader):
    """On the model alone: what stands in for a text encoder has no weights."""

    def load_lora(self, model: Any, clip: Any, lora_name: str, strength_model: float, strength_clip: float):
        return *host_nodes.LoraLoaderModelOnly().load_lora_model_only(model, lora_name, strength_model), clip


# Latents are as large as was asked: other packs' masks are of the picture's size.
_OWN = {
    "LoadImage": Picture,
    "VAEEncode": Encode,
    "LoraLoader": Lora,
    "EmptyLatentImage": host_nodes.EmptyLatentImage,
}


class Engine:
    def __init__(self, monkeypatch: Any):
        classes = {**host_nodes.NODE_CLASS_MAPPINGS, **node_classes(), **small_classes(), **_OWN}
        monkeypatch.setattr(host_nodes, "NODE_CLASS_MAPPINGS", classes)
        listed = folder_paths.get_filename_list
        names = list(CHECKPOINTS.values())
        monkeypatch.setattr(
            folder_paths, "get_filename_list", lambda kind: names if kind == "checkpoints" else listed(kind)
        )
        self.outputs: list[str] = []  # of the last graph that was checked

    @property
    def object_info(self) -> dict[str, Any]:
        (route,) = (each for each in _server().routes if getattr(each, "path", "") == "/object_info")
        return json.loads(_loop().run_until_complete(route.handler(None)).text)

    def refused(self, graph: Graph) -> str:
        """What the host's own check says of a graph; '' where it takes it."""
        execution = importlib.import_module("execution")
        takes = len(inspect.signature(execution.validate_prompt).parameters)
        checked = execution.validate_prompt(*("1", graph, None)[3 - takes :])
        checked = _loop().run_until_complete(checked) if inspect.isawaitable(checked) else checked
        self.outputs = checked[2]
        return "" if checked[0] and not checked[3] else json.dumps([checked[1], checked[3]])

    def run(self, graph: Graph) -> str:
        """Why it failed, checked and run by the host's own executor; '' where it did not."""
        if said := self.refused(graph):
            return said
        executor = _executor()
        executor.execute(graph, "1", {}, self.outputs)
        return (
            ""
            if executor.success
            else next(
                f"{said['node_type']}: {said['exception_message']}"
                for event, said in executor.status_messages
                if event == "execution_error"
            )
        )


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


@lru_cache(maxsize=1)
def _server() -> Any:
    module = importlib.import_module("server")
    return getattr(module.PromptServer, "instance", None) or module.PromptServer(_loop())


def _executor() -> Any:
    execution = importlib.import_module("execution")
    execution.PromptQueue(_server())
    caching = InProcess._caching(SimpleNamespace(execution=execution))
    return execution.PromptExecutor(_server(), **caching)
