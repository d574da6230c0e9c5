"""The host's own server and executor in this process, with this pack's nodes, small models in the places of large ones."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import folder_paths
import torch
import torch.nn.functional as F
from helpers.stand_ins import people
from helpers.workflows import CELLS, node_classes, small_classes
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
        cells = F.interpolate(pixels.movedim(-1, 1), (CELLS, CELLS))
        return ({"samples": torch.cat((cells, cells[:, :1]), 1)},)


_PICTURES = {"LoadImage": Picture, "VAEEncode": Encode}


class Engine:
    def __init__(self, monkeypatch: Any):
        classes = {**host_nodes.NODE_CLASS_MAPPINGS, **node_classes(), **small_classes(), **_PICTURES}
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
    parameters = inspect.signature(execution.PromptExecutor.__init__).parameters
    known: dict[str, Any] = {"cache_args": {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}}
    if "cache_type" in parameters:
        known["cache_type"] = execution.CacheType.CLASSIC
    return execution.PromptExecutor(
        _server(), **{name: value for name, value in known.items() if name in parameters}
    )
