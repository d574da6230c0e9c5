"""Krita AI Diffusion's own client, outside of Krita, on PyQt5: its search for models, and the graphs that it builds."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from neighbours import packs

NAME = "krita-ai-diffusion"
TOOLING = "comfyui-tooling-nodes"  # the plugin's own nodes for ComfyUI
STEPS, SIDE = 2, 128  # of small pictures: its styles say how large a model likes them


@lru_cache(maxsize=1)
def client() -> SimpleNamespace:
    """Its modules, without what starts inside Krita, and with its settings in a folder that is thrown away."""
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="krita_")
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    package = _stand_in("ai_diffusion", str(packs.folder() / NAME / "ai_diffusion"))
    package.__version__ = "0"
    _stand_in("krita")
    # of its connection, which a release brings and a checkout does not
    _stand_in("ai_diffusion.websockets", "")
    _stand_in("ai_diffusion.websockets.src", "").websockets = ModuleType("websockets")
    names = ("workflow", "api", "client", "comfy_client", "comfy_workflow", "resources")
    found = {name: importlib.import_module(f"ai_diffusion.backend.{name}") for name in names}
    found |= {name: importlib.import_module(f"ai_diffusion.{name}") for name in ("files", "image", "style")}
    return SimpleNamespace(
        **found, settings=importlib.import_module("ai_diffusion.settings").PerformanceSettings
    )


def _stand_in(name: str, path: str | None = None) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    if path is not None:
        module.__path__ = [path] if path else []
    return module


class _Sockets:
    """In the place of its connection: it opens, and nothing comes."""

    def __init__(self, *_: Any, **__: Any): ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


def models(object_info: Mapping[str, Any], checkpoints: Mapping[str, str]) -> Any:
    """What its client finds on a server with these nodes. checkpoints: file -> its name of the base model."""
    krita = client()
    krita.comfy_client.websockets.connect = _Sockets
    krita.comfy_client.settings.check_server_resources = False
    connection = krita.comfy_client.ComfyClient.__new__(krita.comfy_client.ComfyClient)
    connection.__dict__.update(
        url="http://127.0.0.1:8188", models=krita.client.ClientModels(), _token="", _id="1"
    )

    async def get(op: str, timeout: float | None = None) -> Any:
        return object_info if op == "object_info" else {} if op == "system_stats" else []

    connection._get = get
    asyncio.run(connection.connect())
    found = {name: {"base_model": base} for name, base in checkpoints.items()}
    connection._refresh_models(connection.models.node_inputs, found, None)
    return connection.models


def missing_packs(object_info: Mapping[str, Any]) -> list[str]:
    """The packs that it asks its user to install."""
    krita = client()
    nodes = krita.comfy_workflow.ComfyObjectInfo(object_info)
    return [package.name for package in krita.comfy_client._check_for_missing_nodes(nodes)]


def graph(found: Any, arch: str, canvas: Any, layers: list[Any], regions: list[Any]) -> dict[str, Any]:
    """The graph for a picture of this size, or over this picture, with these control layers, its images inside."""
    krita = client()
    style = krita.style.Style(Path("default.json"))
    style.architecture = krita.resources.Arch[arch]
    style.checkpoints = [name for name, info in found.checkpoints.items() if info.arch.name == arch]
    style.sampler_steps, style.preferred_resolution = STEPS, SIDE
    files = krita.files.FileLibrary(krita.files.FileCollection(), krita.files.FileCollection())
    said = krita.api.ConditioningInput("a cat", control=layers, regions=regions)
    prompt = krita.workflow.prepare_prompts(said, style, 1, krita.resources.Arch[arch], files=files)
    kinds = krita.api.WorkflowKind
    drawn = isinstance(canvas, krita.image.Extent)
    asked = krita.workflow.prepare(
        kinds.generate if drawn else kinds.refine,
        models=found,
        loras=prompt.loras,
        canvas=canvas,
        cond=prompt.conditioning,
        style=style,
        seed=1,
        perf=krita.settings(batch_size=1),
        files=files,
        **({} if drawn else {"strength": 0.6}),
    )
    return krita.workflow.create(asked, found).embed_images().root
