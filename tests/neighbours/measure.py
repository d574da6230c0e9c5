"""One pack in one graph: our Apply before it and after it, against the right value; figures of the table."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import comfy.sample
import torch
from image_prompt import host
from image_prompt.ipadapter_core import errors
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.nodes import NODE_CLASS_MAPPINGS as OURS
from support import sampling, tiny
from support.oracle import lively_
from torch import Tensor

from .truth import Image, Truth

STEPS = 2
SENTENCES = {cls.__name__ for cls in (errors.ImagePromptError, *errors.ImagePromptError.__subclasses__())}


@dataclass(frozen=True)
class Graph:
    """What a case is sampled with. positive, negative: CONDITIONING. size: of the latent."""

    family: tiny.Family
    positive: Any
    negative: Any
    pictures: int
    size: tuple[int, int]

    @property
    def noise(self) -> Tensor:
        generator = torch.Generator().manual_seed(9)
        return torch.randn(self.pictures, 4, *self.size, generator=generator)


def ksampler(model: Any, graph: Graph) -> Tensor:
    """The host's sampling code, with a seed as its nodes give one: some packs draw from it."""
    noise, conds = graph.noise, (graph.positive, graph.negative)
    with torch.inference_mode():
        return comfy.sample.sample(
            model,
            noise,
            STEPS,
            4.0,
            "euler",
            "normal",
            *conds,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=9,
        )


def unchanged(model: Any, graph: Graph) -> Any:
    return model


@dataclass(frozen=True)
class Case:
    """A pack's node (`patch`, model to model) or sampler (`sample`), and the prompts that its graph has."""

    name: str
    packs: tuple[str, ...] = ()
    patch: Callable[[Any, Graph], Any] = unchanged
    sample: Callable[[Any, Graph], Tensor] = ksampler
    prompts: Callable[[tiny.Family], tuple[Any, Any]] = sampling.prompts
    pictures: int = 1
    size: tuple[int, int] = (16, 16)
    family: tiny.Family = tiny.SD15
    images: int = 1
    mask: bool = False

    def picture(self, model: Any, graph: Graph) -> Tensor:
        """Sampled with all random numbers fixed: some packs draw their windows."""
        random.seed(1)
        torch.manual_seed(1)
        return self.sample(model, graph)

    @property
    def graph(self) -> Graph:
        return Graph(self.family, *self.prompts(self.family), self.pictures, self.size)


def plain_model(name: str) -> Any:
    """A model of its own for each sampling: a pack that fails in the middle leaves its changes on the UNet."""
    return tiny.host_model(tiny.FAMILIES[name], _weights(name))


@lru_cache(maxsize=2)
def _weights(name: str) -> dict[str, Tensor]:
    empty = tiny.host_model(tiny.FAMILIES[name]).get_model_object("diffusion_model").state_dict()
    state = {key: tensor.clone() for key, tensor in empty.items()}
    lively_(state, seed=21)
    return state


@lru_cache(maxsize=2)
def tensors(name: str) -> dict[str, dict[str, Tensor]]:
    found = tiny.adapter_tensors("base", tiny.FAMILIES[name])
    lively_(found["image_proj"], 31)
    lively_(found["ip_adapter"], 32)
    return found


@lru_cache(maxsize=4)
def prompt(name: str, images: int) -> Any:
    """An image prompt of this many images, one for each picture, by our own Encode."""
    adapter = host.HostAdapter(Checkpoint("neighbour.safetensors", **tensors(name)))
    pictures = torch.cat([tiny.picture(seed) for seed in range(1, images + 1)])
    arrange = {"arrange": "one per picture"} if images > 1 else {}
    return _call("ImagePromptEncode", adapter, tiny.clip_vision(), pictures, **arrange)


def mask_for(case: Case) -> Tensor | None:
    """(1, 8H, 8W) in pixels: smooth, different everywhere."""
    if not case.mask:
        return None
    generator = torch.Generator().manual_seed(4)
    h, w = (side * 8 for side in case.size)
    return torch.rand(1, h, w, generator=generator)


def apply(model: Any, case: Case, weight: float) -> Any:
    given = {"mask": mask_for(case)} if case.mask else {}
    return _call("ImagePromptApply", model, prompt(case.family.name, case.images), weight, **given)


def _call(node_id: str, *inputs: Any, **named: Any) -> Any:
    node = OURS[node_id]()
    out = getattr(node, node.FUNCTION)(*inputs, **named)
    return (out["result"] if isinstance(out, dict) else out)[0]


@dataclass
class Row:
    """A line of the table. effect: how far the image moves the picture; errors: a number, or the sentence that came."""

    case: Case
    effect: float = 0.0
    errors: dict[str, float | str] = field(default_factory=dict)
    same_at_zero: dict[str, bool] = field(default_factory=dict)

    def fits(self, error: float | str, limit: float) -> bool:
        """Right, or one of our sentences. A sentence where the pack alone and the oracle ran is still one to read."""
        if isinstance(error, float):
            return error <= limit
        return error.split(":")[0] in SENTENCES


def measure(case: Case) -> Row:
    graph = case.graph
    alone = case.picture(case.patch(plain_model(case.family.name), graph), graph)
    truth, right = _right(case, graph)
    row = Row(case, distance(right, alone))
    assert truth.rows_seen
    for order, build in ORDERS.items():
        row.errors[order] = _attempt(
            lambda b=build: distance(case.picture(b(case, graph, 1.0), graph), right)
        )
        if not case.mask and case.images == 1:
            row.errors[f"{order} 1e-6"] = _attempt(
                lambda b=build: distance(case.picture(b(case, graph, 1e-6), graph), alone)
            )
            row.same_at_zero[order] = torch.equal(case.picture(build(case, graph, 0.0), graph), alone)
    return row


def _before(case: Case, graph: Graph, weight: float) -> Any:
    return case.patch(apply(plain_model(case.family.name), case, weight), graph)


def _after(case: Case, graph: Graph, weight: float) -> Any:
    return apply(case.patch(plain_model(case.family.name), graph), case, weight)


ORDERS = {"before": _before, "after": _after}


def _right(case: Case, graph: Graph) -> tuple[Truth, Tensor]:
    found = prompt(case.family.name, case.images)
    image = Image(tensors(case.family.name)["ip_adapter"], found.cond, found.uncond, mask=mask_for(case))
    truth = Truth(image, graph.noise.shape, [cond[0] for cond in graph.negative])
    model = case.patch(plain_model(case.family.name), graph)
    with truth.hooked(model.get_model_object("diffusion_model")):
        return truth, case.picture(truth.watched(model), graph)


def _attempt(run: Callable[[], float]) -> float | str:
    try:
        return run()
    except Exception as error:
        return f"{type(error).__name__}: {error}".split("\n")[0]


def distance(ours: Tensor, right: Tensor) -> float:
    return ((ours - right).norm() / right.norm()).item()
