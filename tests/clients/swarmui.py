"""SwarmUI's image prompts: nodes and inputs are read off its own source, where C# says what it sends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from neighbours import packs

NAME = "SwarmUI"
_STEPS = "src/BuiltinExtensions/ComfyUIBackend/WorkflowGeneratorSteps.cs"
# What stands around the nodes that it makes where a server has the newer loaders.
_FROM, _TO = "string presetLow", 'Features.Contains("cubiqipadapter"))'
_NODE = re.compile(r'CreateNode\("(\w+)", new JObject\(\)\s*\{(.*?)\}\)', re.DOTALL)
_INPUT = re.compile(r'\["(\w+)"\] = (.*?),?\s*$', re.MULTILINE)
STEPS = 2
ENCODER = "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors"  # of single files, where its user picks none


@dataclass(frozen=True)
class Asked:
    """What its user set. preset: of its menu; weight_type and encoder: None for what it takes itself."""

    checkpoint: str
    preset: str
    images: int = 1
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    weight_type: str | None = None
    encoder: str | None = None


@lru_cache(maxsize=1)
def emitted() -> dict[str, dict[str, str]]:
    """Of each node around an image prompt its inputs, as C# expressions."""
    text = (packs.folder() / NAME / _STEPS).read_text(encoding="utf-8")
    part = text[text.index(_FROM) :]
    part = part[: part.index(_TO)]
    found = {node: dict(_INPUT.findall(inputs)) for node, inputs in _NODE.findall(part)}
    assert found, "nothing of what SwarmUI sends was found: read its source again"
    return found


def menu(object_info: Mapping[str, Any], node: str, name: str) -> list[str]:
    """As its TryGetRequiredInputs reads one: the first list beside a type, or the list of 'options'."""
    for value in object_info[node]["input"]["required"][name]:
        if isinstance(value, list):
            return value
        if isinstance(value, dict) and isinstance(value.get("options"), list):
            return value["options"]
    raise AssertionError(f"{node} has no menu {name} that SwarmUI can read")


class _Graph(dict[str, dict[str, Any]]):
    def add(self, node: str, **inputs: Any) -> list[Any]:
        """Its first output."""
        self[str(len(self) + 1)] = {"class_type": node, "inputs": inputs}
        return [str(len(self)), 0]


def graph(asked: Asked) -> dict[str, dict[str, Any]]:
    """What it sends: its own nodes around the image prompt, ComfyUI's everywhere else."""
    made = _Graph()
    checkpoint = made.add("CheckpointLoaderSimple", ckpt_name=asked.checkpoint)[0]
    model = _prompted(made, asked, checkpoint)
    texts = [made.add("CLIPTextEncode", text=text, clip=[checkpoint, 1]) for text in ("a cat", "blurry")]
    latent = made.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    sampled = made.add(
        "KSampler", model=model, positive=texts[0], negative=texts[1], latent_image=latent, seed=1, steps=STEPS,
        cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    )  # fmt: skip
    picture = made.add("VAEDecode", samples=sampled, vae=[checkpoint, 2])
    made.add("SaveImage", images=picture, filename_prefix="swarm")
    return {**made}


def _prompted(made: _Graph, asked: Asked, checkpoint: str) -> list[Any]:
    """The model with the image prompt: its nodes and inputs, with the values that its expressions stand for."""
    last, *others = (made.add("LoadImage", image=f"swarm {n}.png") for n in range(asked.images))
    for image in others:
        last = made.add("ImageBatch", image1=last, image2=image)
    values: dict[str, Any] = {
        "g.CurrentModel.Path": [checkpoint, 0],
        "lastImage.Path": last,
        'ipAdapter["file:".Length..]': asked.preset.removeprefix("file:"),
        "ipAdapter": asked.preset,
        "ipAdapterStart": asked.start,
        "ipAdapterEnd": asked.end,
        "g.UserInput.Get(ComfyUIBackendExtension.IPAdapterWeight, 1)": asked.weight,
        'g.UserInput.Get(ComfyUIBackendExtension.IPAdapterWeightType, "standard")': asked.weight_type
        or "standard",
        "weightType": _of_single_file(asked.weight_type),
    }
    loader, node = "IPAdapterUnifiedLoader", "IPAdapter"
    if asked.preset.startswith("file:"):
        loader, node = "IPAdapterModelLoader", "IPAdapterAdvanced"
        encoder = made.add("CLIPVisionLoader", clip_name=asked.encoder or ENCODER)
        values["NodePath(getVisionLoader(), 0)"] = encoder
    elif asked.preset.lower().startswith("faceid"):
        loader = "IPAdapterUnifiedLoaderFaceID"
    number = made.add(loader, **_said(emitted()[loader], values))[0]
    values |= {f"NodePath(ipAdapterLoader, {n})": [number, n] for n in range(2)}
    return made.add(node, **_said(emitted()[node], values))


def _of_single_file(weight_type: str | None) -> str:
    """Its names for older weight types, of a node that has newer ones."""
    said = weight_type or "linear"
    return {"standard": "linear", "prompt is more important": "ease out"}.get(said, said)


def _said(inputs: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Raises KeyError for an expression that is new."""
    return {name: _value(expression, values) for name, expression in inputs.items()}


def _value(expression: str, values: Mapping[str, Any]) -> Any:
    if expression.startswith('"'):
        return expression.strip('"')
    return float(expression) if re.fullmatch(r"-?[\d.]+", expression) else values[expression]
