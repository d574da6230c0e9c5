"""Workflow files of the page (UI format): read, checked against node classes, and run in this process on small models."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import types
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import torch
from bootstrap import ROOT
from image_prompt.nodes import NODE_CLASS_MAPPINGS as OURS
from support import tiny, tiny_flux, tiny_sd3
from torch import Tensor

import nodes as host_nodes

from . import flux_stand_ins
from .stand_ins import people, reference

FILES = sorted((ROOT / "workflows").glob("*.json"))
NOTES = ("Note", "MarkdownNote")  # the page's own; no class on the server
EXTRA_MODULES = ("nodes_mask", "nodes_canny", "nodes_flux", "nodes_sd3")  # of comfy_extras
FLUX, SD3 = "Flux.1", "SD3.5"
STEPS, CELLS = 3, 8  # of sampling; latent cells on the short side
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
_SEEDS = ("seed", "noise_seed")


# --- node classes ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def node_classes() -> dict[str, Any]:
    """Every node class that a workflow may use, by id: the host's, the extras' and ours."""
    found = dict(host_nodes.NODE_CLASS_MAPPINGS)
    with _edge_filter():
        for name in EXTRA_MODULES:
            found |= _classes_of(importlib.import_module(f"comfy_extras.{name}"))
    return found | OURS


def _classes_of(module: types.ModuleType) -> dict[str, Any]:
    """Node classes of a module of either schema generation."""
    if hasattr(module, "NODE_CLASS_MAPPINGS"):
        return module.NODE_CLASS_MAPPINGS
    members = [m for _, m in inspect.getmembers(module, inspect.isclass) if m.__module__ == module.__name__]
    return {c.define_schema().node_id: c for c in members if hasattr(c, "define_schema")}


@contextmanager
def _edge_filter() -> Iterator[None]:
    """kornia's place while the Canny node is imported, where kornia is not installed: the node uses one function."""
    if importlib.util.find_spec("kornia"):
        yield
        return
    filters = types.ModuleType("kornia.filters")
    filters.canny = _edges
    stand_in = {"kornia": types.ModuleType("kornia"), "kornia.filters": filters}
    sys.modules.update(stand_in)
    try:
        yield
    finally:
        for name in stand_in:
            del sys.modules[name]


def _edges(images: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    grey = images.mean(1, keepdim=True)
    edges = torch.zeros_like(grey)
    edges[..., 1:] = ((grey[..., 1:] - grey[..., :-1]).abs() > low / 10).to(grey)
    return grey, edges


def inputs_of(node_class: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Type (or list of choices) and options of every input, in the order of declaration."""
    declared = node_class.INPUT_TYPES()
    specs = declared.get("required", {}) | declared.get("optional", {})
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in specs.items()}


def is_widget(kind: Any) -> bool:
    return isinstance(kind, list) or kind in _WIDGETS


def widget_names(node_class: Any) -> list[str | None]:
    """Names in the order of `widgets_values`; None for a value that is the page's own."""
    names: list[str | None] = []
    for name, (kind, options) in inputs_of(node_class).items():
        if is_widget(kind):
            names.append(name)
            if name in _SEEDS or options.get("image_upload"):
                names.append(None)  # control after generate; the upload button
    return names


# --- graphs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One node of a prompt graph: values of its widgets, and links as (node, output)."""

    type: str
    values: dict[str, Any]
    links: dict[str, tuple[int, int]]


Graph = Mapping[int, Call]
Outputs = tuple[Any, ...]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def workflow(number: int) -> Graph:
    """The graph of the workflow whose file name begins with this number."""
    return to_graph(read(next(path for path in FILES if path.name.startswith(f"{number:02} "))))


def to_graph(flow: Mapping[str, Any]) -> Graph:
    """UI format -> the graph that the page would queue."""
    sources = {link[0]: (link[1], link[2]) for link in flow["links"]}
    graph: dict[int, Call] = {}
    for node in flow["nodes"]:
        if node["type"] not in NOTES:
            names = widget_names(node_classes()[node["type"]])
            given = node.get("widgets_values", ())
            assert {*names[len(given) :]} <= {*_added_later(node["type"], names)}
            values = {n: v for n, v in zip(names, given, strict=False) if n}
            links = {i["name"]: sources[i["link"]] for i in node["inputs"] if i["link"] is not None}
            graph[node["id"]] = Call(node["type"], values, links)
    return graph


def _added_later(node_type: str, names: list[str | None]) -> list[str | None]:
    """Optional widgets, which a file may lack at its end: the page fills them in."""
    return [name for name in names if name in node_classes()[node_type].INPUT_TYPES().get("optional", {})]


def of_type(graph: Graph, node_type: str) -> list[int]:
    return sorted(number for number, call in graph.items() if call.type == node_type)


def edited(graph: Graph, node_type: str, **values: Any) -> Graph:
    """The graph with other widget values in its only node of this type."""
    (number,) = of_type(graph, node_type)
    call = graph[number]
    assert values.keys() <= call.values.keys()
    return {**graph, number: replace(call, values=call.values | values)}


def unprompted(graph: Graph) -> Graph:
    """The graph with the sampler connected to the model's loader itself, and nothing that draws what prompts did."""
    graph = {number: call for number, call in graph.items() if call.type != "ImagePromptHeatMap"}
    (sampler,), (checkpoint,) = (
        of_type(graph, "KSampler"),
        [n for loader in ("CheckpointLoaderSimple", "UNETLoader") for n in of_type(graph, loader)],
    )
    call = graph[sampler]
    return {**graph, sampler: replace(call, links=call.links | {"model": (checkpoint, 0)})}


# --- running -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """outputs: of every node that ran, by number. pictures: what reached SaveImage, (n, h, w, 3), or None."""

    outputs: dict[int, Outputs]
    pictures: Tensor | None
    model: Any  # as the sampler got it


def run(graph: Graph, given: Mapping[int, Outputs] | None = None) -> Result:
    """Run every output node, and before it the nodes it depends on. `given` outputs stand for nodes not to be run."""
    done: dict[int, Outputs] = {n: picture(graph, seed) for seed, n in enumerate(of_type(graph, "LoadImage"))}
    done |= given or {}
    ends = [n for n, call in graph.items() if getattr(node_classes()[call.type], "OUTPUT_NODE", False)]
    with torch.inference_mode():
        for number in ends:
            _visit(graph, number, done)
    pictures = [done[graph[n].links["images"][0]][0] for n in of_type(graph, "SaveImage")]
    models = [done[graph[n].links["model"][0]][0] for n in of_type(graph, "KSampler")]
    return Result(done, pictures[0] if pictures else None, models[0] if models else None)


def _visit(graph: Graph, number: int, done: dict[int, Outputs]) -> None:
    if number in done:
        return
    call, values = graph[number], dict(graph[number].values)
    for name, (source, slot) in call.links.items():
        _visit(graph, source, done)
        values[name] = done[source][slot]
    done[number] = (_STAND_INS.get(call.type) or _real(call.type))(**values)


def _real(node_type: str) -> Callable[..., Outputs]:
    """The node's own method, of a class of either schema generation."""
    node_class = node_classes()[node_type]
    if hasattr(node_class, "define_schema"):
        return lambda **values: node_class.execute(**values).result
    method = getattr(node_class(), node_class.FUNCTION)

    def call(**values: Any) -> Outputs:
        if getattr(node_class, "INPUT_IS_LIST", False):
            values = {name: [value] for name, value in values.items()}
        out = method(**values)
        return out.get("result", ()) if isinstance(out, dict) else out

    return call


def picture(graph: Graph, seed: int) -> Outputs:
    """What LoadImage gives in this graph: a picture with people for one that looks for faces, else any."""
    return people(40 + 2 * seed, 220 - 2 * seed) if of_type(graph, "ImagePromptFaces") else reference(seed)


@lru_cache(maxsize=2)
def base_model(family: str) -> Any:
    if family == FLUX:
        return tiny_flux.host_model(tiny_flux.flux_config(flux_stand_ins.DOUBLE, flux_stand_ins.SINGLE))
    if family == SD3:
        return tiny_sd3.host_model(flux_stand_ins.BLOCKS)
    return tiny.host_model(tiny.FAMILIES[family])


_CHECKPOINTS = {"sd_xl": "SDXL", "sd3.5": SD3}


def _checkpoint(ckpt_name: str) -> tuple[Any, str, str]:
    family = next((f for start, f in _CHECKPOINTS.items() if ckpt_name.startswith(start)), "SD1.5")
    return base_model(family), family, "vae"


# Widths of their texts, by token and pooled.
_TRANSFORMERS = {FLUX: (tiny_flux.CONTEXT, tiny_flux.POOLED), SD3: (tiny_sd3.CONTEXT, tiny_sd3.POOLED)}


def _text(text: str, clip: str) -> tuple[list[Any]]:
    """Conditioning that depends on the words alone; `clip` is the family's name."""
    seed = zlib.crc32(text.encode())
    generator = torch.Generator().manual_seed(seed)
    if clip in _TRANSFORMERS:
        context, width = _TRANSFORMERS[clip]
        pooled = {"pooled_output": torch.randn(1, width, generator=generator)}
        return ([[torch.randn(1, 7, context, generator=generator), pooled]],)
    family, pooled = tiny.FAMILIES[clip], torch.randn(1, 1280, generator=generator)
    return ([[tiny.conditioning(family, seed)[0], {"pooled_output": pooled} if family.adm else {}]],)


def _latent(width: int, height: int, batch_size: int, channels: int = 4) -> tuple[dict[str, Tensor]]:
    short = min(width, height)
    return ({"samples": torch.zeros(batch_size, channels, CELLS * height // short, CELLS * width // short)},)


def _sample(steps: int, **values: Any) -> tuple[dict[str, Tensor]]:
    return host_nodes.KSampler().sample(steps=STEPS, **values)


def _decode(samples: dict[str, Tensor], vae: str) -> tuple[Tensor]:
    return (samples["samples"][:, :3].movedim(1, -1),)


def control_net() -> Any:
    """A small random ControlNet as the host's loader builds it."""
    left_out = ("out_channels", "transformer_depth_output")
    config = {k: v for k, v in tiny.SD15.unet.items() if k not in left_out}
    net = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, dtype=torch.float32, device=tiny.CPU)
    net.load_state_dict(tiny.random_({k: v.clone() for k, v in net.state_dict().items()}, 30))
    return comfy.controlnet.ControlNet(
        net.requires_grad_(False), load_device=tiny.CPU, manual_cast_dtype=None
    )


_STAND_INS: dict[str, Callable[..., Outputs]] = {
    "CheckpointLoaderSimple": _checkpoint,
    "UNETLoader": lambda unet_name, weight_dtype: (base_model(FLUX),),
    "DualCLIPLoader": lambda clip_name1, clip_name2, type: (FLUX,),
    "VAELoader": lambda vae_name: ("vae",),
    "EmptySD3LatentImage": partial(_latent, channels=tiny_flux.CHANNELS),
    "ControlNetLoader": lambda control_net_name: (control_net(),),
    "CLIPTextEncode": _text,
    "EmptyLatentImage": _latent,
    "KSampler": _sample,
    "VAEDecode": _decode,
    "PreviewImage": lambda images: (),
    "SaveImage": lambda images, filename_prefix: (),
}


def small_classes() -> dict[str, Any]:
    """The host's node classes with what stands in for their methods: inputs and outputs are the real ones."""
    return {
        node_id: type(real.__name__, (real,), {real.FUNCTION: _method(run)})
        for node_id, run in _STAND_INS.items()
        if hasattr(real := node_classes()[node_id], "FUNCTION") and not hasattr(real, "define_schema")
    }


def _method(run: Callable[..., Outputs]) -> Callable[..., Outputs]:
    def method(self: Any, **values: Any) -> Outputs:
        return run(**{name: value for name, value in values.items() if name not in _HIDDEN})

    return method


_HIDDEN = ("prompt", "extra_pnginfo", "unique_id")


# --- files -------------------------------------------------------------------------------------------------------

MODEL_FOLDERS = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "vae_name": "vae",
    "clip_name": "clip_vision",
    "ipadapter_file": "ipadapter",
    "control_net_name": "controlnet",
    "face_model": "insightface/models",
}
