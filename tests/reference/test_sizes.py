"""Full-size models on the meta device: sites in diffusers' order, parameters to the last one, without memory."""

import comfy.ops
import comfy.utils
import numpy as np
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from helpers import published
from image_prompt.host.attach.unet import slot_of
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.families.matching import match_sites
from image_prompt.ipadapter_core.families.table import model_sites
from image_prompt.ipadapter_core.variants import detect
from support import tiny
from support.oracle import adapter_sites, build_unet

FULL_SIZE = {
    "SD1.5": tiny.SD15.unet | {"model_channels": 320},
    "SDXL": tiny.SDXL.unet | {"model_channels": 320, "num_head_channels": 64},
}
UNET_PARAMETERS = {"SD1.5": 859_520_964, "SDXL": 2_567_463_684}
# paper.md 1.4: (family, arguments of the published projection) -> parameters of the whole adapter
ADAPTERS = {
    "ip-adapter_sd15": ("SD1.5", ("base", 1024, 768), 22_319_616),
    "ip-adapter-plus_sd15": ("SD1.5", ("plus", 1280, 768, 768, 12), 49_087_488),
    "ip-adapter-full-face_sd15": ("SD1.5", ("full", 1280, 768), 21_794_304),
    "ip-adapter_sdxl": ("SDXL", ("base", 1280, 2048), 351_285_248),
    "ip-adapter_sdxl_vit-h": ("SDXL", ("base", 1024, 2048), 349_188_096),
    "ip-adapter-plus_sdxl_vit-h": ("SDXL", ("plus", 1280, 2048, 1280, 20), 423_748_864),
}
KEYS_VALUES = {"SD1.5": 19_169_280, "SDXL": 340_787_200}


@pytest.fixture(scope="module", params=FULL_SIZE)
def unets(request):
    """(family, the host's UNet, diffusers' UNet), full size, on the meta device."""
    return request.param, *both_unets(request.param)


def both_unets(family: str):
    config = FULL_SIZE[family]
    host = UNetModel(**config, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init)
    return host, build_unet(config)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_full_size_models_are_the_released_ones(unets):
    family, host, diffusers = unets
    assert count(host) == count(diffusers) == UNET_PARAMETERS[family]


def test_sites_are_diffusers_attentions_in_file_order(unets):
    family, host, diffusers = unets
    names = comfy.utils.unet_to_diffusers(FULL_SIZE[family])
    theirs = [names[f"{name.removesuffix('.processor')}.to_k.weight"] for name in adapter_sites(diffusers)]
    assert [path_of(site) for site in model_sites(host)] == theirs


def path_of(site) -> str:
    """Where a site's text keys lie in the host's state dict."""
    stage, number, depth = slot_of(site)
    block = "middle_block" if stage == "middle" else f"{stage}_blocks.{number}"
    return f"{block}.1.transformer_blocks.{depth}.attn2.to_k.weight"


def test_the_middle_block_is_number_0_of_the_hosts_patches(unets):
    family, host, _ = unets
    middle = [slot_of(site) for site in model_sites(host) if site.stage == "middle"]
    assert middle == [("middle", 0, depth) for depth in range({"SD1.5": 1, "SDXL": 10}[family])]


def test_numbers_and_widths_are_those_of_diffusers(unets):
    family, host, diffusers = unets
    numbers, widths = zip(*keys_values_of(diffusers), strict=True)
    spec = detect(released(family, ("base", 1024, tiny.FAMILIES[family].context)).shapes)
    assert (spec.site_keys, spec.site_widths) == (numbers, widths)
    assert tuple(site.width for site in model_sites(host)) == widths
    assert match_sites(spec, "adapter", model_sites(host)) == tuple(range(len(widths)))


def keys_values_of(unet) -> list[tuple[int, int]]:
    """(number in an adapter file, width) of every cross-attention, as diffusers enumerates them."""
    attentions = adapter_sites(unet).items()
    return [
        (number, unet.get_submodule(name.removesuffix(".processor")).to_k.out_features)
        for name, number in attentions
    ]


def released(family: str, projection: tuple) -> Checkpoint:
    """A file as the authors' code would write it for a diffusers UNet, of zeros that take no memory until written."""
    unet, context = build_unet(FULL_SIZE[family]), tiny.FAMILIES[family].context
    matrices = {
        f"{number}.to_{which}_ip.weight": zeros((width, context))
        for number, width in keys_values_of(unet)
        for which in "kv"
    }
    network = published.projection(*projection, device="meta").state_dict()
    return Checkpoint(
        "released.safetensors", {key: zeros(tensor.shape) for key, tensor in network.items()}, matrices
    )


def zeros(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.zeros(tuple(shape), dtype=np.float16))


@pytest.mark.parametrize("name", ADAPTERS)
def test_parameters_are_those_of_the_paper(name):
    family, projection, expected = ADAPTERS[name]
    file = released(family, projection)
    adapter = Adapter(file).load_checkpoint(file)
    assert count(adapter.ip_adapter) == KEYS_VALUES[family]
    assert count(adapter) == expected
    assert adapter.spec.family == family
    assert set(adapter.state_dict()) == set(file.state_dict())
