"""Other packs and the host's own nodes beside image prompts on Flux: the picture is right before and after them, or a
sentence says why not. The right one comes from hooks on the blocks, without this pack's code for attention."""

import importlib.util
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.ldm.lightricks.model as lightricks
import comfy.sample
import pytest
import torch
import torch.nn.functional as F
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from neighbours import packs
from support import tiny_flux

pytestmark = pytest.mark.neighbours
DOUBLE, SINGLE, STEPS, WEIGHT = 3, 2, 4, 0.8
NAG, TEACACHE = "ComfyUI-NAG", "ComfyUI-TeaCache"
LIMIT = 1e-4  # of the whole picture, as of the table


def ksampler(model):
    positive, negative = tiny_flux.prompts()
    noise = torch.randn(1, tiny_flux.CHANNELS, 8, 12, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, STEPS, 3.0, "euler", "simple", positive, negative, torch.zeros_like(noise),
            disable_pbar=True, seed=1,
        )  # fmt: skip


def plain():
    return tiny_flux.host_model(tiny_flux.flux_config(DOUBLE, SINGLE))


@pytest.fixture(scope="module")
def prompt():
    tensors, roles = tiny_flux.xlabs(DOUBLE), {"image_proj": {}, "ip_adapter": {}}
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    adapter = host.HostAdapter(Checkpoint("xlabs", **roles))
    tokens = adapter.project(Features(torch.randn(2, 48, generator=torch.Generator().manual_seed(1))))
    return make_prompt(adapter, tokens[:1], tokens[1:])


# --- neighbours --------------------------------------------------------------------------------------------------


class Skipping:
    """Another pack's patch of a block: hands on, or leaves the block out."""

    def __init__(self, skip=False):
        self.skip, self.calls = skip, 0

    def __call__(self, args, extra):
        self.calls += 1
        return dict(args) if self.skip else extra["original_block"](args)


def patched(patch, place=("double_block", 1)):
    def apply(model):
        made = model.clone()
        made.set_model_patch_replace(patch, "dit", *place)
        return made

    return apply


def core(module, node_id, **inputs):
    def apply(model):
        packs.extra(module)
        return packs.core(node_id, model=model, **inputs)[0]

    return apply


def nag_of_the_host(model):
    packs.extra("nodes_nag")
    return packs.core("NAGuidance", model=model)[0]


@dataclass(frozen=True)
class Case:
    name: str
    patch: Any


has_nag = pytest.mark.skipif(
    importlib.util.find_spec("comfy_extras.nodes_nag") is None, reason="the host's NAG came after 0.3.64"
)
CASES = [
    Case("no pack", lambda model: model),
    Case("another pack's patch of a block", patched(Skipping())),
    Case("a block left out", patched(Skipping(skip=True))),
    Case(
        "EasyCache of the host",
        core("nodes_easycache", "EasyCache", reuse_threshold=3.0, start_percent=0.0, end_percent=1.0),
    ),
    Case(
        "SkipLayerGuidance of the host",
        core(
            "nodes_slg",
            "SkipLayerGuidanceDiT",
            double_layers="1",
            single_layers="0",
            start_percent=0.0,
            end_percent=1.0,
        ),
    ),
    pytest.param(Case("NAG of the host", nag_of_the_host), marks=has_nag),
]


# --- the right picture -------------------------------------------------------------------------------------------


@contextmanager
def hooked(model, prompt):
    """XLabs' residual behind each double block, by hooks on it and on the norm of its q."""
    network = model.get_model_object("diffusion_model")
    handles, seen, q = [], Counter(), {}
    pairs = prompt.keys_values

    def keep(n):
        return lambda module, args, out: q.__setitem__(n, out)

    def add(n):
        def hook(module, args, kwargs, out):
            img, txt = out
            numbers = kwargs["transformer_options"]["cond_or_uncond"]
            rows = torch.tensor(numbers).repeat_interleave(img.shape[0] // len(numbers))
            keys, values = (t[rows].unflatten(-1, (tiny_flux.HEADS, -1)).transpose(1, 2) for t in pairs[n])
            added = F.scaled_dot_product_attention(q[n], keys, values).transpose(1, 2).flatten(2)
            seen[n] += 1
            return img + WEIGHT * added, txt

        return hook

    for n, block in enumerate(network.double_blocks):
        handles.append(block.img_attn.norm.query_norm.register_forward_hook(keep(n)))
        handles.append(block.register_forward_hook(add(n), with_kwargs=True))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def right(case, prompt):
    model = case.patch(plain())
    with hooked(model, prompt) as seen:
        return ksampler(model), seen


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def applied(model, prompt, weight=WEIGHT):
    return host.apply_prompt(model, prompt, weight)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_beside(case, prompt):
    alone = ksampler(case.patch(plain()))
    expected, seen = right(case, prompt)
    assert seen
    assert distance(expected, alone) > 0.05
    before, after = case.patch(applied(plain(), prompt)), applied(case.patch(plain()), prompt)
    figures = [distance(ksampler(model), expected) for model in (before, after)]
    print(
        f"{case.name}: effect {distance(expected, alone):.2f}, before {figures[0]:.1e}, after {figures[1]:.1e}"
    )
    assert max(figures) < LIMIT
    for model in (case.patch(applied(plain(), prompt, 0.0)), applied(case.patch(plain()), prompt, 0.0)):
        assert torch.equal(ksampler(model), alone)


@pytest.mark.parametrize("place", [("double_block", 1), ("single_block", 0)])
def test_a_foreign_patch_runs_as_often_as_without(place, prompt):
    alone, beside = Skipping(), Skipping()
    ksampler(patched(alone, place)(plain()))
    ksampler(patched(beside, place)(applied(plain(), prompt)))
    assert alone.calls == beside.calls > 0


_BLOCK = tiny_flux.host_model(tiny_flux.flux_config()).get_model_object("diffusion_model").double_blocks[0]
runs_nag = pytest.mark.skipif(
    not hasattr(_BLOCK, "flipped_img_txt"), reason="ComfyUI-NAG's Flux needs what hosts had until 0.3.64"
)
loads_teacache = pytest.mark.skipif(
    not hasattr(lightricks, "precompute_freqs_cis"),
    reason="ComfyUI-TeaCache needs what hosts had until 0.3.64",
)


def teacache(model):
    (model,) = packs.node(TEACACHE, "TeaCache", model=model, model_type="flux", cache_device="cpu")
    return ksampler(model)


def nag(model):
    positive, negative = tiny_flux.prompts()
    latent = {"samples": torch.zeros(1, tiny_flux.CHANNELS, 8, 12)}
    return packs.node(
        NAG, "KSamplerWithNAG", model=model, seed=9, steps=2, cfg=1.0, sampler_name="euler", scheduler="simple",
        positive=positive, negative=negative, nag_negative=negative, latent_image=latent,
    )  # fmt: skip


@pytest.mark.parametrize(
    "run", [pytest.param(nag, marks=runs_nag), pytest.param(teacache, marks=loads_teacache)]
)
def test_packs_that_hand_on_no_options_get_a_sentence(run, prompt):
    """Their own copies of the model's forward call blocks without them: nothing is added in silence."""
    run(plain())
    run(applied(plain(), prompt, 0.0))
    with pytest.raises(MismatchError, match="a way of its own"):
        run(applied(plain(), prompt))
