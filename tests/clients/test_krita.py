"""Krita AI Diffusion on a ComfyUI that has this pack and not the older one: it finds its models, and its graphs run."""

import numpy as np
import pytest
from clients import krita
from clients.engine import CHECKPOINTS
from clients.krita import SIDE
from helpers.stand_ins import people, reference
from neighbours import packs
from PIL import Image

pytestmark = pytest.mark.clients
MODES = ("reference", "style", "composition", "face")
# Layers of a picture: (mode, strength, part of sampling), and of each of its regions.
ONE = {mode: ([(mode, 0.8, (0.0, 1.0))], []) for mode in MODES}
LAYERS = {
    **ONE,
    "weak and early": ([("reference", 0.3, (0.0, 0.4))], []),
    "style, late": ([("style", 1.2, (0.5, 1.0))], []),
    "two references": ([("reference", 1.0, (0.0, 1.0)), ("reference", 0.5, (0.2, 0.9))], []),
    "five references": ([("reference", 0.5, (0.0, 1.0))] * 5, []),
    "two faces": ([("face", 0.9, (0.0, 1.0))] * 2, []),
    "all modes": ([(mode, 0.5, (0.0, 1.0)) for mode in MODES], []),
    **{f"region with {mode}": ([], [[], [(mode, 0.8, (0.0, 1.0))]]) for mode in MODES},
    "two regions": ([], [[], [("reference", 0.8, (0.0, 1.0))], [("style", 0.8, (0.0, 0.7))]]),
    "a reference under regions": (
        [("reference", 0.5, (0.0, 1.0))],
        [[], [("composition", 1.0, (0.0, 1.0))], [("face", 0.8, (0.0, 1.0))]],
    ),
}
ARCHS = ("sd15", "sdxl")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """As Krita's documents hold them: a picture, one with people, and a mask of the right half."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, tensor in {"any": reference(1)[0], "face": people(40, 220)[0]}.items():
        Image.fromarray((tensor[0].numpy() * 255).clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    half = np.zeros((SIDE, SIDE), np.uint8)
    half[:, SIDE // 2 :] = 255
    Image.fromarray(half).save(folder / "mask.png")
    Image.open(folder / "any.png").resize((SIDE, SIDE)).save(folder / "canvas.png")
    return folder


@pytest.fixture(scope="module")
def tooling():
    """The plugin's own nodes, and those of the host that its graphs use, in the host's table before an engine copies it."""
    packs.load(krita.TOOLING)
    packs.extra("nodes_custom_sampler")


@pytest.fixture
def found(tooling, engine):
    return krita.models(engine.object_info, dict(zip(CHECKPOINTS.values(), ("sd15", "sdxl"), strict=True)))


def control(layers, pictures):
    modules = krita.client()
    load_image = modules.image.Image.load
    return [
        modules.api.ControlInput(
            modules.resources.ControlMode[mode],
            load_image(pictures / ("face.png" if mode == "face" else "any.png")),
            strength,
            part,
        )
        for mode, strength, part in layers
    ]


def regions_of(regions, pictures):
    modules = krita.client()
    mask = modules.image.Mask.load(pictures / "mask.png").to_image()
    bounds = modules.image.Bounds(0, 0, SIDE, SIDE)
    return [
        modules.api.RegionInput(mask, bounds, f"part {n}", control(layers, pictures))
        for n, layers in enumerate(regions)
    ]


def test_it_asks_for_no_other_pack_for_image_prompts(engine):
    assert "IP-Adapter" not in krita.missing_packs(engine.object_info)
    without = {name: info for name, info in engine.object_info.items() if not name.startswith("IPAdapter")}
    assert "IP-Adapter" in krita.missing_packs(without)


def test_it_finds_the_files_of_all_its_modes(found):
    modules = krita.client()
    for arch in ARCHS:
        own = found.for_arch(modules.resources.Arch[arch])
        assert own.clip_vision
        for mode in MODES:
            assert own.ip_adapter.find(modules.resources.ControlMode[mode]), (arch, mode)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_picture_is_made(engine, found, pictures, arch, name):
    layers, regions = LAYERS[name]
    canvas = krita.client().image.Extent(SIDE, SIDE)
    graph = krita.graph(found, arch, canvas, control(layers, pictures), regions_of(regions, pictures))
    assert {node["class_type"] for node in graph.values()} & {"IPAdapterEmbeds", "IPAdapterFaceID"}
    assert engine.run(graph) == ""


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("mode", MODES)
def test_a_picture_is_refined(engine, found, pictures, arch, mode):
    canvas = krita.client().image.Image.load(pictures / "canvas.png")
    graph = krita.graph(found, arch, canvas, control(ONE[mode][0], pictures), [])
    assert engine.run(graph) == ""
