"""Subgraph blueprints put into a graph that runs in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import workflows
from .blueprint_files import subgraph
from .workflows import Call, Graph

INPUT, OUTPUT = -10, -20  # what stands for the subgraph's own slots in its links
_FIRST = 100  # number of the first node around it


def check_value(where: str, value: Any, kind: Any, options: Mapping[str, Any]) -> None:
    """That a widget's value is one the input of this type and these options takes. where: 'type.input'."""
    choices = kind if isinstance(kind, list) else options.get("options")
    if where.split(".")[1] in (*workflows.MODEL_FOLDERS, "image", "prompt_file"):
        assert isinstance(value, str), where  # a menu of the user's files
    elif choices is not None:
        assert value in choices, where
    else:
        python = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}[kind]
        assert isinstance(value, python), where
        assert options.get("min", value) <= value <= options.get("max", value), where


def inside(path: Path) -> Graph:
    """Its nodes; links from the subgraph's inputs have INPUT as their node."""
    inner = subgraph(path)
    links = [[e["id"], e["origin_id"], e["origin_slot"], e["target_id"]] for e in inner["links"]]
    return workflows.to_graph({"nodes": inner["nodes"], "links": links})


def placed(path: Path, checkpoint: str) -> Graph:
    """In a graph as a user builds it: loaders before it, a sampler behind it. Its widgets have their own values."""
    inner, graph = subgraph(path), dict(inside(path))
    outer, sources = _before(inner["inputs"], checkpoint)
    for number, call in graph.items():
        links = {name: link for name, link in call.links.items() if link[0] != INPUT}
        links |= {
            name: sources[slot]
            for name, (node, slot) in call.links.items()
            if node == INPUT and slot in sources
        }
        graph[number] = Call(call.type, call.values, links)
    given = {
        e["target_slot"]: (e["origin_id"], e["origin_slot"])
        for e in inner["links"]
        if e["target_id"] == OUTPUT
    }
    found = {slot["name"]: given[n] for n, slot in enumerate(inner["outputs"])}
    return graph | outer | _after(found)


def _before(
    inputs: list[dict[str, Any]], checkpoint: str
) -> tuple[dict[int, Call], dict[int, tuple[int, int]]]:
    """Nodes around it, and what each of its inputs is joined to; masks stay open."""
    clip = {"clip": (_FIRST, 1)}
    outer = {
        _FIRST: Call("CheckpointLoaderSimple", {"ckpt_name": checkpoint}, {}),
        _FIRST + 1: Call("CLIPTextEncode", {"text": "a house"}, clip),
        _FIRST + 2: Call("CLIPTextEncode", {"text": "blurry"}, clip),
    }
    sources: dict[int, tuple[int, int]] = {}
    for slot, given in enumerate(inputs):
        if given["type"] == "MODEL":
            sources[slot] = (_FIRST, 0)
        elif given["type"] == "CONDITIONING":
            sources[slot] = (_FIRST + 1 + (given["name"] == "negative"), 0)
        elif given["type"] == "IMAGE":
            number = _FIRST + 10 + slot
            outer[number] = Call("LoadImage", {"image": "example.png"}, {})
            sources[slot] = (number, 0)
    return outer, sources


def _after(found: Mapping[str, tuple[int, int]]) -> dict[int, Call]:
    sampler, latent, decode = _FIRST + 3, _FIRST + 4, _FIRST + 5
    links = {
        "model": found["model"],
        "positive": found.get("positive", (_FIRST + 1, 0)),
        "negative": found.get("negative", (_FIRST + 2, 0)),
        "latent_image": (latent, 0),
    }
    settings = {
        "seed": 1,
        "steps": 9,
        "cfg": 5.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    return {
        sampler: Call("KSampler", settings, links),
        latent: Call("EmptyLatentImage", {"width": 768, "height": 512, "batch_size": 1}, {}),
        decode: Call("VAEDecode", {}, {"samples": (sampler, 0), "vae": (_FIRST, 2)}),
        decode + 1: Call("SaveImage", {"filename_prefix": "x"}, {"images": (decode, 0)}),
    }
